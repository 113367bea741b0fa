"""A whole line small enough for a test: a tiny model, a task it can learn in a second, a recipe."""

from __future__ import annotations

from pathlib import Path

import yaml

from slmops.files import write_jsonl

SENTENCES = {
    "delivery": "where is my parcel {n}",
    "refund": "please refund the money {n}",
    "discount": "the discount code {n}",
    "address": "change the address {n}",
}


def write_rows(folder: Path) -> dict[str, Path]:
    """Training rows, pool, validation and test rows of four labels."""
    counts = {"train": 8, "pool": 24, "validation": 3, "test": 10}
    files, start = {}, 0
    for split, count in counts.items():
        rows = [
            {"text": sentence.format(n=number), **({} if split == "pool" else {"label": label})}
            for number in range(start, start + count)
            for label, sentence in SENTENCES.items()
        ]
        files[split] = folder / f"{split}.jsonl"
        write_jsonl(files[split], rows)
        start += count
    return files


def write_recipe(folder: Path, model: Path, **changes: object) -> Path:
    """A recipe over these rows; ``changes`` replace top-level values."""
    files = write_rows(folder)
    recipe = {
        "name": "tiny",
        "task_type": "classification",
        "output_path": str(folder / "out"),
        "data": {"source": {"name": "files", **{split: str(file) for split, file in files.items()}}},
        "teacher": {
            "model": str(model),
            "tune": {"learning_rate": 0.003, "max_steps": 120, "batch_size": 8, "checkpoint_seconds": 0.3},
        },
        "answers": {"chunk_rows": 16, "max_new_tokens": 12},
        "signals": {"k": 8},
        "student": {"layers": 2},
        "training": {
            "learning_rate": 0.003,
            "epochs": 8,
            "batch_size": 8,
            "checkpoint_seconds": 0.3,
            "objectives": [{"name": "cross_entropy", "weight": 0.3}, {"name": "forward_kl", "weight": 0.7}],
        },
        "export": {
            "max_length": 128,
            "schemes": ["int4", "int8"],
            "teacher_schemes": ["int4"],
            "parity": {"rows": 20, "min_agreement": 0.8, "max_drop": 0.2},
        },
        "evaluation": {"latency_requests": 5, "batch_size": 4},
        "gates": ["accuracy >= 0.5 * teacher"],
        **changes,
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return file

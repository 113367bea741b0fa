"""Every task type goes through the whole line: data, teacher, students, conversion, measures, package, report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from slmops.config import load_recipe
from slmops.evaluation.schema import parse_report
from slmops.files import read_json, read_jsonl, write_jsonl
from slmops.pipeline import run
from slmops.tasks.base import TASKS
from tests.pipeline.tiny_line import write_recipe

THINGS = ("apple", "bridge", "candle", "dragon", "engine", "forest", "garden", "hammer", "island", "jacket", "kettle", "ladder")
BY_RECIPE_TOO = ("classification", "extraction", "generation", "qa")
"""Task types that the recipes bring through the line in every test run; these runs are among the slow ones."""

COUNTS = {"train": 10, "pool": 6, "validation": 4, "test": 6}


def example(task_type: str, number: int) -> dict[str, Any]:
    """A question and its answer."""
    one, other = THINGS[number % 12], THINGS[(number * 5 + 3 + number // 12) % 12]
    if task_type == "conversation":
        said = [("user", f"one {one} please"), ("assistant", f"the {one}?"), ("user", f"and a {other}")]
        turns = [{"role": role, "content": content} for role, content in said]
        return {"messages": turns, "answer": f"one {one}, one {other}"}
    answers = {
        "nli": ("entailment", "neutral", "contradiction")[number % 3],
        "qa": "ABCDE"[number % 5],
        "math": f"{number} and {number} make {2 * number}\n#### {2 * number}",
        "summarization": f"It is about the {one}.",
        "translation": f"le {one} et le {other}",
        "classification": ("big", "small")[number % 2],
        "extraction": json.dumps({"first": one, "second": [other]}),
        "generation": f"Take the {one} to the {other}.",
    }
    return {"question": f"the {one} beside the {other} of number {number}", "answer": answers[task_type]}


def write_rows(folder: Path, task_type: str) -> dict[str, str]:
    files, start = {}, 0
    folder.mkdir()
    for split, count in COUNTS.items():
        rows = [example(task_type, number) for number in range(start, start + count)]
        write_jsonl(folder / f"{split}.jsonl", [{**row, "answer": None} if split == "pool" else row for row in rows])
        files[split] = str(folder / f"{split}.jsonl")
        start += count
    return files


@pytest.mark.parametrize(
    "task_type",
    [pytest.param(name, marks=[pytest.mark.slow] if name in BY_RECIPE_TOO else []) for name in TASKS.names()],
)
def test_a_task_type_runs_from_its_rows_to_its_package(task_type: str, tmp_path: Path, long_model: Path, quick: None) -> None:
    two_updates = {"learning_rate": 0.003, "max_steps": 2, "batch_size": 8}
    recipe = write_recipe(
        tmp_path,
        long_model,
        task_type=task_type,
        data={"source": {"name": "files", **write_rows(tmp_path / "rows", task_type)}},
        teacher={"model": str(long_model), "tune": two_updates},
        answers={"min_success": 0, "max_new_tokens": 4},
        signals={"k": 4},
        training={**two_updates, "objectives": [{"name": "cross_entropy"}, {"name": "forward_kl"}]},
        export={
            "max_length": 2048,
            "schemes": ["int4"],
            "teacher_schemes": ["int4"],
            "parity": {"rows": 4, "min_agreement": 0, "max_drop": 1},
        },
        gates=["share_of_teacher >= 0", "size_mb <= 100"],
    )
    outcome = run(load_recipe(recipe))
    root = outcome.root
    report = parse_report(read_json(root / "report.json"))
    task_names = {
        "classification": "accuracy",
        "conversation": "token_f1",
        "extraction": "entity_f1",
        "generation": "token_f1",
        "math": "numeric_match",
        "nli": "accuracy",
        "qa": "accuracy",
        "summarization": "rouge_l",
        "translation": "chrf",
    }
    has_labels = task_type in ("classification", "nli", "qa")
    assert report.primary_measure == task_names[task_type]
    assert (report.row("tfidf") is not None, report.confusion is not None) == (has_labels, has_labels)
    assert {row.name for row in report.rows} >= {"teacher", "teacher-quantized", "untuned", "control", "answers-only", "distilled"}
    assert all(row.measures[report.primary_measure] is not None for row in report.rows)
    assert {item.measure for item in report.differences} == {report.primary_measure}
    assert report.test_rows == COUNTS["test"]
    assert report.data.quality.success == 1.0
    assert report.verdict.packaged is not None
    assert (root / "package" / "genai_config.json").is_file()
    [data] = (root / "artifacts").glob("data-*")
    assert sum(len(read_jsonl(data / f"{split}.jsonl")) for split in COUNTS) == sum(COUNTS.values())
    page = (root / "report.html").read_text(encoding="utf-8")
    assert 'href="data-report.html"' in page
    assert (root / "data-report.html").read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    assert run(load_recipe(recipe)).packaged == outcome.packaged

"""The data stage: rows, those set aside, and the report on both, before anything expensive starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slmops.config import Recipe, build
from slmops.errors import DataError
from slmops.files import read_json, read_jsonl, write_jsonl
from slmops.stages.context import Context, ModelAt
from slmops.stages.preparing import prepare_data
from slmops.workspace import StageResult, Workspace

pytest.importorskip("datasketch", reason="the data stage needs the extra quality")
pytest.importorskip("py3langid", reason="the data stage needs the extra quality")

NAMES = ("apple", "bridge", "candle", "dragon", "engine", "forest", "garden", "hammer", "island", "jacket", "kettle", "ladder")


def prepared(folder: Path, model: Path, rows: list[dict[str, Any]], **quality: Any) -> StageResult:
    write_jsonl(folder / "train.jsonl", rows)
    values = {
        "name": "x",
        "task_type": "generation",
        "output_path": str(folder / "out"),
        "data": {"source": {"name": "files", "train": str(folder / "train.jsonl")}, "quality": quality},
        "teacher": {"model": str(model)},
        "answers": {"max_new_tokens": 28},
        "export": {"max_length": 128},
    }
    return prepare_data(Context(build(Recipe, values, where="test"), Workspace(folder / "out")), ModelAt(model, "tiny"))


def rows() -> list[dict[str, Any]]:
    return [{"question": f"what of the {one} and the {other}", "answer": f"a {other}"} for one in NAMES for other in NAMES[:3]]


def test_what_has_more_tokens_than_the_model_takes_is_set_aside(tmp_path: Path, tiny_model: Path) -> None:
    long = {"question": "the " * 24 + "ж" * 60, "answer": "no"}
    data = prepared(tmp_path, tiny_model, [*rows(), long])
    [bad] = read_jsonl(data.path / "rejected.jsonl")
    assert bad["reason"].startswith("too long: the question has ")
    assert bad["reason"].endswith(" tokens, and 100 fit beside an answer")
    assert (data.facts["quality"]["read"], data.facts["quality"]["good"]) == (37, 36)
    assert read_json(data.path / "data-report.json")["aside"][0]["kind"] == "too long"
    assert (data.path / "data-report.html").is_file()


def test_too_few_good_rows_stop_the_stage_and_leave_what_is_wrong(tmp_path: Path, tiny_model: Path) -> None:
    refused = [{"question": f"who is the {name}", "answer": "I'm sorry, but I can't help with that."} for name in NAMES]
    with pytest.raises(DataError, match=r"only 75.0% of 48 rows are good, fewer than the 80.0% asked for \(12 × refusal\)"):
        prepared(tmp_path, tiny_model, [*rows(), *refused], min_success=0.8)
    [folder] = (tmp_path / "out" / "artifacts").glob("data-*")
    assert len(read_jsonl(folder / "rejected.jsonl")) == 12
    assert prepared(tmp_path, tiny_model, [*rows(), *refused]).facts["quality"]["success"] == 0.75

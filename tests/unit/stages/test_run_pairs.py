"""A loss on pairs of texts is refused before anything is trained where no row is a pair."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from slmops.config import Recipe, build
from slmops.data.rows import Row
from slmops.errors import ConfigError
from slmops.files import write_json, write_jsonl
from slmops.stages.context import Context
from slmops.stages.pairs import check_pairs
from slmops.workspace import StageResult, Workspace


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({}, None),
        ({"fields": ["premise", "text"]}, r"'premise' and 'text', and no row has both\n.*the fields hypothesis, premise"),
        ({"different": ["no"]}, r"the answers no, and the task has none of them\n.*labels are entailment, neutral, contradiction"),
    ],
)
@pytest.mark.parametrize("section", ["training", "teacher"])
def test_a_loss_on_pairs_without_pairs_is_refused(
    tmp_path: Path, options: dict[str, Any], problem: str | None, section: str
) -> None:
    objectives = [{"name": "cross_entropy"}, {"name": "contrastive", **options}]
    sections = {"training": {"objectives": objectives}, "teacher": {"model": "m", "tune": {"objectives": objectives}}}
    row = replace(Row.of("a or b", "neutral"), fields={"premise": "a", "hypothesis": "b"})
    write_jsonl(tmp_path / "train.jsonl", [row.as_dict()])
    write_jsonl(tmp_path / "pool.jsonl", [])
    write_json(tmp_path / "task.json", {})
    values = {"name": "x", "task_type": "nli", "output_path": str(tmp_path), "data": {"source": {"name": "files"}}}
    recipe = build(Recipe, {**values, "teacher": {"model": "m"}, section: sections[section]}, where="test")
    context = Context(recipe, Workspace(tmp_path))
    if problem is None:
        check_pairs(context, StageResult("data", tmp_path))
    else:
        with pytest.raises(ConfigError, match=problem):
            check_pairs(context, StageResult("data", tmp_path))

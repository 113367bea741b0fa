"""Hyperparameters of a fine-tuning from the recipe, the rows and the model's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmops.config import FinetuneRecipe, build
from slmops.stages.context import DataContext, ModelAt
from slmops.stages.preparing import prepare_data
from slmops.stages.settling import settle, table_of, width_of
from slmops.training.defaults import CHOSEN
from slmops.workspace import Workspace

LABELS = ("delivery", "refund", "account")


@pytest.fixture
def recipe(tiny_model: Path, tmp_path: Path) -> FinetuneRecipe:
    rows = [{"text": f"please {LABELS[n % 3]} number {n}", "label": LABELS[n % 3]} for n in range(60)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    quality = {"language": "any", "near_duplicates": None}
    values = {
        "name": "settled",
        "task_type": "classification",
        "output_path": str(tmp_path / "out"),
        "model": str(tiny_model),
        "data": {"source": {"name": "files", "train": str(tmp_path / "train.jsonl")}, "test_share": 0, "quality": quality},
        "training": {"lora": {}, "batch_size": 4},
    }
    return build(FinetuneRecipe, values, where="test")


def test_what_was_left_open_is_chosen_and_the_recipe_has_it(recipe: FinetuneRecipe, tiny_model: Path) -> None:
    names = [name for name in CHOSEN if name != "batch_size"]
    found, chosen = settle(recipe, "lora", tiny_model, None, names)
    assert set(chosen) == set(names)
    assert found.training.batch_size == 4
    assert found.training.epochs == chosen["epochs"].value == 10.0
    assert found.training.learning_rate == chosen["learning_rate"].value
    assert found.training.lora == recipe.training.lora
    again, _ = settle(recipe, "lora", tiny_model, None, names)
    assert again == found
    assert settle(recipe, "lora", tiny_model, None, ()) == (recipe, {})


def test_a_model_that_is_not_here_keeps_the_rate_open(recipe: FinetuneRecipe) -> None:
    found, chosen = settle(recipe, "lora", None, None, CHOSEN)
    assert chosen["learning_rate"].value is None
    assert found.training.learning_rate == recipe.training.learning_rate


def test_the_table_says_where_validation_rows_come_from(recipe: FinetuneRecipe, tiny_model: Path) -> None:
    planned = table_of(recipe, {}, None)[-1]
    assert (planned.value, planned.origin) == ("15% of the rows", "default")
    data = prepare_data(DataContext(recipe, Workspace(recipe.output_path)), ModelAt(tiny_model, "tiny"))
    drawn = table_of(recipe, {}, data)[-1]
    assert drawn.value == "9 rows"
    assert drawn.reason == "none given: 15% held out, by label, of which each keeps training rows"
    source = {**recipe.data.source, "validation": "held-out.jsonl"}
    given = recipe.model_copy(update={"data": recipe.data.model_copy(update={"source": source})})
    assert (table_of(given, {}, None)[-1].value, table_of(given, {}, None)[-1].origin) == ("as given", "yours")


def test_the_width_is_what_the_configuration_says(tmp_path: Path) -> None:
    for config, width in (
        ({"hidden_size": 576}, 576),
        ({"n_embd": 768}, 768),
        ({"text_config": {"hidden_size": 640}}, 640),
        ({}, None),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert width_of(tmp_path) == width

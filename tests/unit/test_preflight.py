"""What a recipe cannot mean is refused before anything expensive starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slmops import preflight
from slmops.config import Recipe, build
from slmops.errors import ConfigError, MissingExtraError, ResourceError, UsageError
from slmops.models.resolve import resolve


def recipe(tmp_path: Path, **changes: Any) -> Recipe:
    values = {
        "name": "x",
        "task_type": "classification",
        "output_path": str(tmp_path / "out"),
        "data": {"source": {"name": "files", "train": "train.jsonl"}},
        "teacher": {"model": "m"},
        **changes,
    }
    return build(Recipe, values, where="test")


@pytest.mark.parametrize(
    ("changes", "nearest"),
    [
        ({"task_type": "clasification"}, "'classification'"),
        ({"export": {"schemes": ["int-4"]}}, "'int4'"),
        ({"export": {"runtime": "ort-gen"}}, "'ort-genai'"),
        ({"training": {"objectives": [{"name": "forward-kl"}]}}, "'forward_kl'"),
        ({"teacher": {"model": "m", "tune": {"objectives": [{"name": "cross_entropi"}]}}}, "'cross_entropy'"),
        ({"gates": ["acuracy >= 0.5"]}, "'accuracy'"),
        ({"gates": ["accuracy >= 0.9 * techer"]}, "'teacher'"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(tmp_path: Path, changes: dict[str, Any], nearest: str) -> None:
    with pytest.raises(UsageError, match=nearest):
        preflight.check_names(recipe(tmp_path, **changes))


def test_the_names_of_a_sound_recipe_pass(tmp_path: Path) -> None:
    preflight.check_names(recipe(tmp_path, gates=["accuracy >= 0.9 * teacher", "size_mb <= 100"]))


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "find_spec", lambda name: None if name == "onnxruntime_genai" else object())
    with pytest.raises(MissingExtraError, match=r"slmops\[export\]"):
        preflight.check_extras(recipe(tmp_path))


def test_more_layers_than_there_are_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    model = resolve(tiny_model)
    with pytest.raises(ConfigError, match="4 layers, not 9"):
        preflight.check_machine(recipe(tmp_path, student={"layers": 9}), model, model)


def test_a_full_disk_is_refused(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = resolve(tiny_model)
    monkeypatch.setattr(preflight, "disk_mb", lambda teacher, student: 1e12)
    with pytest.raises(ResourceError, match="of disk are needed"):
        preflight.check_machine(recipe(tmp_path), model, model)
    monkeypatch.undo()
    preflight.check_machine(recipe(tmp_path), model, model)

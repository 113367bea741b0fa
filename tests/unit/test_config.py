"""Recipes refuse what they do not know, say where values come from, and hold no option that nothing reads."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

import slmops
from slmops import config
from slmops.config import FinetuneRecipe, Recipe, build, load_recipe, plugin, save_recipe
from slmops.errors import ConfigError
from slmops.recipes import find_recipe, shipped
from slmops.sections import Section
from slmops.values import explain, read_values

SMALL: dict[str, Any] = {
    "name": "tiny",
    "task_type": "classification",
    "output_path": "runs/tiny",
    "data": {"source": {"name": "files", "train": "rows.csv"}},
    "teacher": {"model": "smollm2-135m-instruct", "tune": {"epochs": 2}},
}


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    return file


def test_a_recipe_takes_defaults_then_the_file_then_the_command_line(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file, ["teacher.tune.epochs=4", "training.learning_rate=1e-3", "seed=5"])
    assert recipe.teacher.tune is not None
    assert (recipe.teacher.tune.epochs, recipe.training.epochs) == (4, 3)
    assert recipe.training.learning_rate == 1e-3
    assert recipe.seed == 5


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("teacher.tune=null", None),
        ("teacher.tune={epochs: 7, lora: {r: 4}}", 7),
        ("teacher.tune.epochs=2.5", 2.5),
    ],
)
def test_overrides_are_yaml(recipe_file: Path, override: str, expected: float | None) -> None:
    tune = load_recipe(recipe_file, [override]).teacher.tune
    assert (tune and tune.epochs) == expected


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("sed", "sed: unknown key; did you mean 'seed'"),
        ("training.epoch", "training.epoch: unknown key; did you mean 'epochs'"),
        ("teacher.tune.learning-rate", "teacher.tune.learning-rate: unknown key; did you mean 'learning_rate'"),
        ("teacher.tune.lora.alfa", "teacher.tune.lora.alfa: unknown key; did you mean 'alpha'"),
        ("export.parity.min_agrement", "export.parity.min_agrement: unknown key; did you mean 'min_agreement'"),
        ("xyz", "xyz: unknown key; known: answers, chat_template, data"),
    ],
)
def test_an_unknown_key_gets_the_nearest_at_any_depth(recipe_file: Path, key: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe_file, [f"{key}=1"])
    assert problem in str(caught.value)
    assert str(recipe_file) in str(caught.value)


def test_all_problems_are_named_at_once(recipe_file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe_file, ["training.epochs=-1", "signals.k=many", "name=A B", "training.objectives=[]"])
    for problem in ("training.epochs: Input should be greater than 0", "signals.k: ", "name: ", "training.objectives: "):
        assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("override", "problem"),
    [("epochs", "'epochs' is not key=value"), ("=3", "'=3' is not key=value"), ("seed=[", "the value of seed is not valid YAML")],
)
def test_an_override_that_is_none_is_refused(recipe_file: Path, override: str, problem: str) -> None:
    with pytest.raises(ConfigError, match="command line: ") as caught:
        read_values(recipe_file, [override])
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a: [", "not valid YAML"),
        (b"- 1\n", "a mapping of keys to values"),
        (b"", "a mapping"),
        (b"\xff\xfe\x00", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=problem):
        load_recipe(file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: the recipe cannot be read: No such file"):
        load_recipe(tmp_path / "nowhere.yaml")


def test_drawn_signals_are_not_softened(recipe_file: Path) -> None:
    drawn, soft = "signals.form=sampled", "training.objectives=[{name: forward_kl, kd_temperature: 2}]"
    with pytest.raises(ConfigError, match=r"forward_kl with a kd_temperature needs signals\.form: topk"):
        load_recipe(recipe_file, [drawn, soft])
    assert load_recipe(recipe_file, [drawn, soft.replace("2", "1")]).signals.samples == 32
    assert load_recipe(recipe_file, [soft]).signals.k == 32


def test_new_tokens_are_for_a_model_that_is_fine_tuned_with_its_embeddings(recipe_file: Path) -> None:
    with pytest.raises(ConfigError, match="add is for fine-tuning"):
        load_recipe(recipe_file, ["data.special_tokens=add"])
    data = {"source": {"name": "files"}, "special_tokens": "add"}
    values = {"name": "a", "task_type": "generation", "output_path": "out", "model": "m", "data": data}
    assert build(FinetuneRecipe, values, where="a").data.special_tokens == "add"
    with pytest.raises(ConfigError, match="freeze_embeddings none"):
        build(FinetuneRecipe, {**values, "training": {"freeze_embeddings": True}}, where="a")


def test_a_plug_in_is_a_name_and_its_options() -> None:
    assert plugin({"name": "files", "train": "a"}, where="data") == ("files", {"train": "a"})
    with pytest.raises(ConfigError, match="data: a plug-in needs a name"):
        plugin({"train": "a"}, where="data")


def test_configuration_does_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        build(Recipe, SMALL, where="x").seed = 3  # type: ignore[misc]  # what it refuses


def test_every_value_is_explained_with_its_origin(recipe_file: Path) -> None:
    overrides = ["training={epochs: 9}", "teacher.tune.lora.r=8", "seed=1"]
    values = read_values(recipe_file, overrides)
    rows = {
        key: (value, origin)
        for key, value, origin in explain(build(Recipe, values, where="x").model_dump(mode="json"), values, overrides)
    }
    assert rows["name"] == ("tiny", "recipe")
    assert rows["data.source.train"] == ("rows.csv", "recipe")
    assert rows["teacher.tune.epochs"] == (2.0, "recipe")
    assert rows["teacher.tune.lora.r"] == (8, "command line")
    assert rows["teacher.tune.lora.alpha"] == (32, "default")
    assert rows["training.epochs"] == (9.0, "command line")
    assert rows["training.learning_rate"] == (5e-4, "default")
    assert rows["seed"] == (1, "command line")
    assert rows["export.parity.rows"] == (200, "default")


def test_a_saved_recipe_is_the_same_recipe(recipe_file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file, ["teacher.tune.lora={r: 4}", "gates=[accuracy >= 0.9]", "task.labels=[é, b]"])
    save_recipe(tmp_path / "saved.yaml", recipe)
    assert load_recipe(tmp_path / "saved.yaml") == recipe
    assert "learning_rate" not in (tmp_path / "saved.yaml").read_text()  # defaults are left out


@pytest.mark.parametrize("name", shipped())
def test_a_recipe_that_comes_with_the_package_is_valid(name: str) -> None:
    from slmops.data.sources import SOURCES
    from slmops.evaluation.gates import Gate
    from slmops.tasks.base import TASKS
    from slmops.training.objectives import WeightedSum

    file = find_recipe(name)
    recipe = load_recipe(file)
    source, options = plugin(recipe.data.source, where="data.source")
    build(SOURCES.get(source), options, where="data.source")
    assert recipe.task_type in TASKS.names()
    assert [Gate.parse(text).text for text in recipe.gates] == list(recipe.gates)
    for section in (recipe.training, recipe.teacher.tune):
        assert section is None or WeightedSum.of(section.objectives).terms
    assert recipe.name == name
    assert file.read_text(encoding="utf-8").startswith("# ")  # its summary in 'slmops recipes'


def test_every_recipe_in_the_folder_comes_with_the_package() -> None:
    folder = Path(slmops.__file__).parent / "recipes"
    assert {file.stem for file in folder.iterdir() if file.suffix in (".yaml", ".yml")} == set(shipped())
    assert shipped()


def test_a_recipe_is_found_by_path_or_name(recipe_file: Path, tmp_path: Path) -> None:
    (name, file), *_ = shipped().items()
    assert find_recipe(str(recipe_file)) == recipe_file
    assert find_recipe(name) == find_recipe(f"recipes/{name}.yaml") == file
    with pytest.raises(ConfigError, match=f"no recipe '{name[:-1]}'\n.*did you mean '{name}'"):
        find_recipe(name[:-1])
    with pytest.raises(ConfigError, match="no recipe"):
        find_recipe(str(tmp_path))


def fields() -> Iterator[tuple[str, str]]:
    for section in vars(config).values():
        if isinstance(section, type) and issubclass(section, Section):
            yield from ((section.__name__, name) for name in section.model_fields)


def attributes_read(*files: Path) -> set[str]:
    """Attributes that the code of these files reads; what stands in texts and documentation does not count."""
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)}


def test_no_option_is_read_by_nothing() -> None:
    own = Path(config.__file__)
    read = attributes_read(*(file for file in Path(slmops.__file__).parent.rglob("*.py") if file != own))
    assert len(list(fields())) > 40
    assert [f"{section}.{name}" for section, name in fields() if name not in read] == []


def test_a_plug_in_reads_all_its_options() -> None:
    from slmops.data.sources import SOURCES
    from slmops.tasks.base import TASKS
    from slmops.teachers.combiners import COMBINERS
    from slmops.training.registry import OBJECTIVES

    plugins = [registry.get(name) for registry in (SOURCES, TASKS, OBJECTIVES, COMBINERS) for name in registry.names()]
    assert [
        f"{options.__name__}.{name}"
        for options in plugins
        for name in options.model_fields
        if name not in attributes_read(*{Path(inspect.getfile(base)) for base in options.__mro__ if issubclass(base, BaseModel)})
    ] == []


def test_every_option_is_described() -> None:
    undescribed = [
        f"{section.__name__}.{name}"
        for section in vars(config).values()
        if isinstance(section, type) and issubclass(section, Section)
        for name, field in section.model_fields.items()
        if not field.description and not (isinstance(field.annotation, type) and issubclass(field.annotation, Section))
    ]
    assert undescribed == []

"""A recipe with losses on layers: what is kept of the teacher follows from them, is taken once, and reaches the student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from slmops.config import load_recipe
from slmops.errors import ConfigError, FingerprintError
from slmops.files import read_json, write_json
from slmops.models.load import load_model
from slmops.models.resolve import resolve
from slmops.preflight import check_objectives
from slmops.signals.store import SignalStore
from slmops.stages.context import MODEL, Context, ModelAt
from slmops.stages.layering import INTERNALS, layer_losses, layers_key
from slmops.stages.learning import Lesson
from slmops.stages.preparing import gold_of, prepare_data
from slmops.testing.tiny import save_tiny_model
from slmops.workspace import Workspace
from tests.pipeline.tiny_line import write_recipe

CROSS: dict[str, Any] = {"name": "cross_entropy", "weight": 0.5}
HIDDEN: dict[str, Any] = {"name": "hidden_states", "measure": "cosine"}
RELATIONS: dict[str, Any] = {"name": "attention_relations", "weight": 0.1}
TUNED = {"learning_rate": 0.003, "max_steps": 2, "batch_size": 8}


@pytest.fixture
def lesson(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("slmops.models.vocabulary.MARGIN", 5)

    def make(objectives: list[dict[str, Any]], student: dict[str, Any] | None = None, tune: Any = TUNED, **changes: Any) -> Lesson:
        given = {
            "training": {"max_steps": 2, "batch_size": 8, "objectives": objectives, "precision": "float32"},
            "teacher": {"model": str(tiny_model), "tune": tune, "precision": "float32"},
            "student": student or {"layers": 2},
            "answers": {"max_new_tokens": 2, "min_success": 0, "chunk_rows": 64},
            "chat_template": "compact",
        }
        recipe = load_recipe(write_recipe(tmp_path, tiny_model, **{**given, **changes}))
        context = Context(recipe, Workspace(recipe.output_path))
        check_objectives(recipe)
        models = [resolve(name) for name in (str(tiny_model), recipe.student.model or str(tiny_model))]
        teacher, own = (ModelAt(model.path, model.fingerprint) for model in models)
        prepared = prepare_data(context, own)
        return Lesson.of(context, prepared, gold_of(context, prepared), teacher, own)

    return make


def test_what_is_kept_follows_from_the_losses_and_the_student(lesson: Any, capsys: pytest.CaptureFixture[str]) -> None:
    made = lesson([CROSS, {"name": "forward_kl"}, HIDDEN, RELATIONS], {"layers": 2, "keep": "uniform"})
    facts = made.signals.facts["layers"]
    assert made.untuned.facts["kept_layers"] == [0, 3]
    assert facts["hidden"] == [2, 3]  # the student's first layer hands on to the teacher's last what its third does
    assert facts["attention"] == [3]
    assert facts["pairs"] == [[[0, 2], [1, 3]], [[1, 3]]]
    said = capsys.readouterr().err
    assert "hidden_states: layers of student ← teacher 0←2 1←3" in said
    assert "attention_relations: layers of student ← teacher 1←3" in said
    assert "of the teacher's layers: 268 bytes an answer token and 260 a token read, about 0 MB" in said
    trained = made.distilled()
    rows = made.answers.path / "training.jsonl"
    count = len(rows.read_text(encoding="utf-8").splitlines())
    assert f"hidden states in {count} of {count} rows, attention in {count} of {count} rows" in capsys.readouterr().err
    assert trained.facts["steps"] == 2
    plain = made.answers_only()
    assert (plain.path / MODEL / "model.safetensors").read_bytes() != (trained.path / MODEL / "model.safetensors").read_bytes()
    again = lesson([CROSS, {"name": "forward_kl"}, HIDDEN, RELATIONS], {"layers": 2, "keep": "uniform"})
    assert again.distilled().id == trained.id
    assert "[signals] start" not in capsys.readouterr().err
    with pytest.raises(FingerprintError, match="made with another data and another form and another layers"):
        SignalStore.open(made.signals.path / INTERNALS, {})


def test_weights_and_measures_do_not_take_signals_again(lesson: Any) -> None:
    first = lesson([CROSS, HIDDEN])
    again = lesson([CROSS, {**HIDDEN, "measure": "mse", "weight": 3.0, "projection": True}])
    other = lesson([CROSS, {**HIDDEN, "layers": "last"}])
    assert again.signals.id == first.signals.id
    assert other.signals.id != first.signals.id


def test_without_losses_on_layers_nothing_of_them_is_kept(lesson: Any) -> None:
    made = lesson([CROSS, {"name": "forward_kl"}])
    assert layers_key(layer_losses(made.context.recipe)) == {}
    assert "layers" not in made.signals.facts
    assert set(made.signals.artifact.manifest.parents) == {"teacher", "data", "answers"}
    assert "layers" not in made.signals.artifact.manifest.config
    assert not (made.signals.path / INTERNALS).exists()


def test_alike_layers_are_found_by_their_hidden_states(lesson: Any) -> None:
    """The student's layers are the teacher's first two, and the teacher is hardly tuned."""
    made = lesson(
        [CROSS, {**HIDDEN, "layers": "similarity"}], {"layers": 2, "keep": "first"}, tune={**TUNED, "learning_rate": 1e-6}
    )
    assert made.signals.facts["layers"]["pairs"] == [[[0, 0], [1, 1]]]


def test_a_narrower_student_with_other_heads_learns_through_projections(lesson: Any, tmp_path: Path) -> None:
    small = save_tiny_model(tmp_path / "small", kind="qwen2", layers=3, hidden=32, seed=5)
    made = lesson([CROSS, {**HIDDEN, "count": 2}, RELATIONS], {"model": str(small)})
    assert made.signals.facts["layers"]["pairs"] == [[[0, 0], [2, 3]], [[2, 3]]]
    trained = made.distilled()
    assert load_model(trained.path / MODEL).config.hidden_size == 32


def test_a_student_with_fewer_tokens_learns_from_layers_too(lesson: Any, capsys: pytest.CaptureFixture[str]) -> None:
    made = lesson([CROSS, {"name": "forward_kl"}, HIDDEN, RELATIONS], {"layers": 2, "vocabulary": "trim"})
    capsys.readouterr()
    assert made.distilled().facts["steps"] == 2
    said = capsys.readouterr().err
    assert "rows fit the student's" in said
    assert "compared with the teacher's: hidden states in" in said


def test_attention_of_a_teacher_that_is_asked_otherwise_is_refused(lesson: Any) -> None:
    with pytest.raises(ConfigError, match=r"attention can be compared in no row.*\n.*hidden_states"):
        lesson([CROSS, RELATIONS], tune=None).distilled()
    assert lesson([CROSS, HIDDEN], tune=None).distilled().facts["steps"] == 2


def test_heads_that_cannot_be_compared_are_refused_before_signals_are_taken(lesson: Any, tmp_path: Path) -> None:
    small = save_tiny_model(tmp_path / "small", layers=2, hidden=32)
    config = read_json(small / "config.json")
    config |= {"num_attention_heads": 2, "head_dim": 16, "num_key_value_heads": 1}
    write_json(small / "config.json", config)
    with pytest.raises(ConfigError, match="the teacher has 4 attention heads and the student 2"):
        lesson([CROSS, {"name": "attention_maps"}], {"model": str(small)})
    assert not list((tmp_path / "out").rglob("chunk-*"))


def test_layers_that_there_are_not_are_refused_before_signals_are_taken(lesson: Any) -> None:
    with pytest.raises(ConfigError, match=r"no pair of layers \[2, 3\]\n.*the student's are 0 to 1, the teacher's 0 to 3"):
        lesson([CROSS, {**HIDDEN, "layers": [[2, 3]]}])


@pytest.mark.parametrize(
    "teacher",
    [
        {"model": "gpt-4o"},
        {"members": [{"model": "smollm2-135m-instruct"}, {"model": "smollm2-135m"}], "combine": {"name": "mixture"}},
    ],
    ids=["an API", "a mixture"],
)
def test_a_teacher_without_layers_here_is_refused_at_once(teacher: dict[str, Any], tmp_path: Path, tiny_model: Path) -> None:
    training = {"objectives": [CROSS, HIDDEN]}
    recipe = load_recipe(write_recipe(tmp_path, tiny_model, teacher=teacher, training=training, student={"model": str(tiny_model)}))
    with pytest.raises(ConfigError, match=r"hidden_states needs the layers of a teacher.*one model on this machine"):
        check_objectives(recipe)

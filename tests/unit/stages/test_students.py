"""The student of a recipe: cut by what training rows and pool need, and taught under its own token ids."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from slmops.config import load_recipe
from slmops.errors import ConfigError, ModelError
from slmops.files import read_jsonl, write_json, write_jsonl
from slmops.models.load import load_tokenizer, read_config
from slmops.models.resolve import resolve
from slmops.preflight import check_machine, check_names
from slmops.stages.answering import RunTeacher, answer, take_signals
from slmops.stages.context import MODEL, Context, ModelAt, rows_of
from slmops.stages.learning import Lesson
from slmops.stages.preparing import gold_of, prepare_data
from slmops.stages.teaching import TOKENIZER, cut_student, distill_model, train_model
from slmops.workspace import StageResult, Workspace
from tests.pipeline.tiny_line import write_recipe


@pytest.fixture(autouse=True)
def small_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slmops.models.vocabulary.MARGIN", 5)


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> Any:
    def make(student: dict[str, Any], **changes: Any) -> Context:
        given = {"student": {"model": str(tiny_model), **student}, "teacher": {"model": str(tiny_model)}}
        limits = {"answers": {"max_new_tokens": 4, "min_success": 0, "chunk_rows": 64}, "chat_template": "compact"}
        recipe = load_recipe(write_recipe(tmp_path, tiny_model, **{**given, **limits, **changes}))
        return Context(recipe, Workspace(recipe.output_path))

    return make


def at(context: Context) -> ModelAt:
    model = resolve(str(context.recipe.student.model))
    return ModelAt(model.path, model.fingerprint)


def tokens_of(student: StageResult) -> set[str]:
    return set(load_tokenizer(student.path / MODEL).get_vocab())


def test_the_vocabulary_is_chosen_from_training_rows_and_pool_alone(run: Any, tiny_model: Path) -> None:
    context = run({"layers": 2, "vocabulary": "trim"})
    data = prepare_data(context, at(context))
    student = cut_student(context, at(context), data)
    kept = tokens_of(student)
    tokenizer = load_tokenizer(tiny_model)
    for split in ("train", "pool"):
        assert {token for row in rows_of(data, split) for token in tokenizer.tokenize(row.messages[-1]["content"])} <= kept
    assert len(kept) == read_config(student.path / MODEL)["vocab_size"] == student.facts["needed_tokens"] + 5 < 384
    assert student.facts["kept_layers"] == [0, 1]
    test = data.path / "test.jsonl"
    write_jsonl(test, [{**line, "messages": [{"role": "user", "content": "account payment"}]} for line in read_jsonl(test)])
    again = Context(context.recipe, Workspace(context.recipe.output_path / "again"))
    assert tokens_of(cut_student(again, at(context), data)) == kept
    assert not {"account", "Ġpayment"} & kept


def test_how_many_validation_rows_are_split_as_before_is_said(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    context = run({"vocabulary": "trim"})
    data = prepare_data(context, at(context))
    student = cut_student(context, at(context), data)
    assert 0 < student.facts["alike"] <= 1
    assert f"{student.facts['alike']:.1%} of the validation rows have the same tokens" in capsys.readouterr().err


def test_layers_are_chosen_by_the_training_rows(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    context = run({"layers": 2, "keep": "importance"})
    student = cut_student(context, at(context), prepare_data(context, at(context)))
    assert len(student.facts["influence"]) == 4
    assert "influence    [kept] " in capsys.readouterr().err
    assert tokens_of(student) == set(load_tokenizer(at(context).path).get_vocab())


def test_a_target_decides_layers_and_tokens(run: Any) -> None:
    context = run({"target": "100K"})
    student = cut_student(context, at(context), prepare_data(context, at(context)))
    assert 60_000 < student.facts["parameters"] <= 100_000
    assert student.facts["target"] == "100,000 parameters"


def test_without_a_cut_nothing_of_the_data_decides(run: Any) -> None:
    context = run({})
    student = cut_student(context, at(context), prepare_data(context, at(context)))
    assert set(student.artifact.manifest.parents) == {"base"}
    assert student.artifact.manifest.config["layers"] is None


def test_a_student_with_fewer_tokens_learns_from_its_teachers_signals(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    context = run({"layers": 2, "vocabulary": "trim"})
    data = prepare_data(context, at(context))
    teacher = RunTeacher(context, cut_teacher(context))
    answers = answer(context, teacher, data)
    signals = take_signals(context, teacher, data, answers)
    assert load_tokenizer(signals.path / TOKENIZER).get_vocab() == load_tokenizer(at(context).path).get_vocab()
    student = cut_student(context, at(context), data, answers)
    start = ModelAt(student.path / MODEL, student.id)
    inputs = {"data": data, "answers": answers, "signals": signals}
    trained = distill_model(context, "distilled", start, inputs, context.recipe.training.model_copy(update={"max_steps": 2}))
    rows = len(rows_of(answers, "training"))
    assert f"signals of {rows} of {rows} rows fit the student's {len(tokens_of(student))} tokens" in capsys.readouterr().err
    assert trained.facts["steps"] == 2
    assert tokens_of(trained) == tokens_of(student)


OWN = {"objectives": [{"name": "cross_entropy"}, {"name": "jsd"}], "max_steps": 3, "batch_size": 8}


def test_a_student_learns_from_what_it_says_itself(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has fewer tokens than its teacher, who knows all of them."""
    context = run({"layers": 2, "vocabulary": "trim"}, training={**OWN, "on_policy": {"share": 1, "max_new_tokens": 5}})
    data = prepare_data(context, at(context))
    teacher = RunTeacher(context, cut_teacher(context))
    answers = answer(context, teacher, data)
    signals = take_signals(context, teacher, data, answers)
    student = cut_student(context, at(context), data, answers)
    lesson = Lesson(context, gold_of(context, data), teacher, data, answers, signals, student)
    trained = lesson.distilled()
    own = trained.facts["on_policy"]
    assert (own["updates"], own["samples"], own["share"]) == (3, 24, 1.0)
    assert 24 <= own["tokens"] == trained.facts["answer_tokens"] <= 24 * 5
    assert trained.artifact.manifest.config["on_policy"]["share"] == 1
    assert tokens_of(trained) == tokens_of(student) < set(load_tokenizer(at(context).path).get_vocab())

    # What is compared with it has no teacher, and one who may be asked is asked nothing.
    monkeypatch.setattr(RunTeacher, "load", lambda self: pytest.fail("the teacher was loaded"))
    assert "on_policy" not in lesson.answers_only().facts
    assert lesson.distilled().id == trained.id


def test_a_teachers_scores_are_as_wide_as_its_signals_unless_told(run: Any) -> None:
    for section, k in (({"k": 5}, 5), ({}, 8)):
        context = run({}, training={**OWN, "on_policy": section})
        data = prepare_data(context, at(context))
        scoring = RunTeacher(context, cut_teacher(context)).scoring(data, context.template(at(context).path))
        row = rows_of(data, "pool")[0]
        (score,) = scoring.score([row], [(70, 71)])
        assert score.ids.shape == (2, k)


def test_without_own_samples_nothing_of_them_decides(run: Any) -> None:
    context = run({}, training={**OWN, "max_steps": 1})
    data = prepare_data(context, at(context))
    trained = train_model(context, "control", at(context), {"data": data}, context.recipe.training.without_teacher)
    assert "on_policy" not in trained.artifact.manifest.config
    assert "on_policy" not in trained.facts


def cut_teacher(context: Context) -> StageResult:
    from slmops.stages.teaching import tune_teacher

    return tune_teacher(context, at(context), prepare_data(context, at(context)))


def test_a_target_that_cannot_be_read_is_refused_at_once(run: Any) -> None:
    with pytest.raises(ConfigError, match="is no target"):
        check_names(run({"target": "small"}).recipe)


def test_a_tokenizer_that_cannot_be_trimmed_is_refused_before_anything_starts(run: Any, tiny_model: Path, tmp_path: Path) -> None:
    words = Path(shutil.copytree(tiny_model, tmp_path / "words"))
    write_json(words / "tokenizer.json", {"model": {"type": "WordPiece", "vocab": {}}})
    context = run({"model": str(words), "vocabulary": "trim"})
    with pytest.raises(ModelError, match="WordPiece"):
        check_machine(context.recipe, None, resolve(words))

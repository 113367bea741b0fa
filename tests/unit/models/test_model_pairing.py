"""One table says whether a teacher and a student fit, and what the student can learn from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slmops.cli import main
from slmops.errors import ModelError
from slmops.models.fittable import Pairing
from slmops.models.load import load_tokenizer
from slmops.models.pairing import pair
from slmops.models.vocabulary import Vocabulary, trim_vocabulary
from slmops.testing.tiny import save_tiny_model
from tests.unit.models.test_model_vocabulary import gemma, gpt2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher; a student like it, a trimmed one, one with more rows than tokens, one of another family."""
    root = tmp_path_factory.mktemp("pairs")
    teacher = save_tiny_model(root / "teacher", layers=6)
    save_tiny_model(root / "alike", layers=2, hidden=32, context=128)
    vocabulary = Vocabulary.of(teacher, load_tokenizer(teacher)("where is my parcel")["input_ids"])
    trim_vocabulary(teacher, root / "trimmed", vocabulary.first(vocabulary.smallest))
    gpt2(root / "padded")
    gemma(root / "other")
    return root


def of(folder: Path, student: str, teacher: str = "teacher") -> Pairing:
    return pair(folder / teacher, folder / student)


@pytest.mark.parametrize(
    ("student", "relation"),
    [("alike", "same"), ("padded", "same with padding"), ("trimmed", "student's is a part"), ("other", "different")],
)
def test_how_the_tokenizers_relate(folder: Path, student: str, relation: str) -> None:
    found = of(folder, student)
    assert found.tokenizers == relation
    assert found.shared == 1 if student != "other" else 0.1 < found.shared < 0.9


def test_a_teacher_can_be_the_smaller_one(folder: Path) -> None:
    found = of(folder, "teacher", teacher="trimmed")
    assert found.tokenizers == "teacher's is a part"
    assert found.shared < 1


@pytest.mark.parametrize(("student", "positions"), [("alike", True), ("padded", True), ("trimmed", True), ("other", False)])
def test_which_objectives_follow(folder: Path, student: str, positions: bool) -> None:
    found = of(folder, student)
    possible = {objective.name: objective.possible for objective in found.objectives}
    assert list(possible) == [
        "answers: cross_entropy",
        "distributions: forward_kl and others",
        "distributions: uld",
        "layers: hidden_states",
        "layers: attention_relations and others",
    ]
    assert list(possible.values()) == [True, positions, True, positions, positions]
    assert ("ULD" in found.rule) is not positions


@pytest.mark.parametrize(("student", "taken"), [("alike", True), ("trimmed", True), ("other", False)])
def test_a_run_takes_signals_where_tokenizers_allow_it(folder: Path, tmp_path: Path, student: str, taken: bool) -> None:
    from slmops.config import load_recipe
    from slmops.pipeline import plan
    from tests.pipeline.tiny_line import write_recipe

    teacher = folder / "teacher"
    steps = plan(load_recipe(write_recipe(tmp_path, teacher, student={"model": str(folder / student)})))
    assert ("signals" in [step.stage for step in steps]) is taken
    assert ("answers-only" in [step.stage for step in steps]) is taken


def test_layers_of_the_student_stand_as_far_up_as_those_of_the_teacher(folder: Path) -> None:
    assert of(folder, "alike").layer_map == (1, 4)
    assert of(folder, "trimmed").layer_map == (0, 1, 2, 3, 4, 5)
    cut = pair(folder / "teacher", folder / "teacher", layers=3)
    assert (cut.student.layers, cut.layer_map) == (3, (1, 3, 5))
    assert cut.student.parameters < cut.teacher.parameters


def test_templates_context_and_width_are_in_the_table(folder: Path) -> None:
    found = of(folder, "alike")
    assert (found.templates, found.teacher.template, found.student.context, found.student.width) == (True, "ChatML", 128, 32)
    table = found.table()
    assert "128 for both" in table
    assert "0←1 1←4" in table
    assert "needs a projection" in table
    assert "times smaller" in table
    assert not of(folder, "other").templates
    assert of(folder, "other").student.template == "none (plain)"


def test_texts_that_a_trimmed_vocabulary_splits_otherwise_are_counted(folder: Path) -> None:
    assert of(folder, "alike").alike == 1
    assert of(folder, "trimmed").alike < 1


def test_the_command_prints_the_table_or_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["fit", "--teacher", str(folder / "teacher"), "--student", str(folder / "other")]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert not ended.value.code
    assert "tokenizers: different" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([*words, "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert (facts["tokenizers"], facts["teacher"]["layers"], facts["objectives"][0]["possible"]) == ("different", 6, True)


def test_a_folder_without_a_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no tokenizer here"):
        pair(folder / "teacher", tmp_path)

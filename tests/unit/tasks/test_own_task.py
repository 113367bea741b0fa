"""A task type is found by any of its names; one of the user's own is a class in a file, run only when it is named."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from slmops.data.rows import Row
from slmops.errors import ConfigError, UsageError
from slmops.evaluation.measures import measure_name
from slmops.tasks.base import open_task, task_class, task_key, task_name

SHOUT = '''
from collections.abc import Sequence

from pydantic import Field

from slmops.tasks.base import AnswerError
from slmops.tasks.prompts import Prompted


class Shout(Prompted):
    """Text in capitals."""

    mark: str = Field("!", description="Sign at the end")

    @property
    def primary_measure(self) -> str:
        return "exact_match"

    def parse(self, text: str) -> str:
        answer = super().parse(text)
        if not answer.isupper():
            raise AnswerError("not in capitals: " + answer)
        return answer.rstrip(self.mark) + self.mark

    def score(self, answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        hits = sum(self.correct(a, r) for a, r in zip(answers, references, strict=True))
        return {"exact_match": hits / max(len(answers), 1), "valid_share": self.valid_share(answers)}
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shout.py"
    path.write_text(SHOUT)
    return path


@pytest.mark.parametrize(
    ("name", "known"), [("nli", "nli"), ("NLI", "nli"), ("NLU_QA", "qa"), ("nlu-qa", "qa"), (" Summarization ", "summarization")]
)
def test_a_task_is_found_by_any_of_its_names(name: str, known: str) -> None:
    assert task_name(name) == task_key(name) == known
    assert task_class(name) is task_class(known)


def test_an_unknown_task_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown task type 'sumarization'\n.*did you mean 'summarization'\?.*\.py file"):
        task_class("sumarization")


def test_a_task_of_ones_own_is_one_file(file: Path) -> None:
    for name in (str(file), f"{file}:Shout"):
        task = open_task(name, {"mark": "?", "system_prompt": "SHOUT."})
        assert task.parse("WHY??") == "WHY?"
        assert task.score(["why", "WHY"], ["WHY?", "WHY?"]) == {"exact_match": 0.5, "valid_share": 0.5}
        assert task.ask(Row.of("what?"))[0] == {"role": "system", "content": "SHOUT."}
        assert pickle.loads(pickle.dumps(task)) == task  # noqa: S301
    with pytest.raises(ConfigError, match="marc: unknown key; did you mean 'mark'"):
        open_task(str(file), {"marc": "?"})


def test_a_changed_file_is_another_task(file: Path) -> None:
    before = task_key(str(file))
    assert task_key(f"{file}:Shout")["file"] == before["file"]
    file.write_text(SHOUT.replace('"!"', '"?!"'))
    assert task_key(str(file)) != before
    assert open_task(str(file), {}).parse("WHY") == "WHY?!"


@pytest.mark.parametrize(
    ("content", "name", "problem"),
    [
        (None, "", "no such file"),
        ("x = 1 / 0", "", "cannot be run: ZeroDivisionError"),
        ("x = 1", "", "no task class"),
        (SHOUT + SHOUT.replace("class Shout", "class Cry"), "", "several task classes"),
        (SHOUT, ":Shoot", r"no task class 'Shoot'\n.*did you mean 'Shout'"),
        (SHOUT.replace("def score", "def rate"), ":Shout", "the class Shout lacks score"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, content: str | None, name: str, problem: str) -> None:
    path = tmp_path / "own.py"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=problem) as raised:
        open_task(f"{path}{name}", {})
    assert str(path) in str(raised.value)


@pytest.mark.parametrize(
    ("alias", "name"), [("bleu_score", "bleu"), ("slot_f1", "entity_f1"), ("rougel", "rouge_l"), ("em", "exact_match")]
)
def test_measures_have_the_names_that_others_use(alias: str, name: str) -> None:
    assert measure_name(alias) == name

"""A teacher's answers: the usable ones in the task's form, the others beside them with their reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import DataError
from slmops.models.load import load_model
from slmops.runtimes.base import Generation, Sampling
from slmops.signals.forms import TopKForm
from slmops.tasks.classification import Classification
from slmops.tasks.generation import Generation as FreeText
from slmops.teachers.answered import Answered, check_success
from slmops.teachers.asking import ask_rows
from slmops.teachers.local import LocalTeacher
from slmops.teachers.replies import AskParams
from slmops.teachers.signals import signal_rows
from slmops.teachers.weights import WeightsTeacher

TASK = Classification(labels=("Delivery", "Refund"))
SAYS = {
    "where is it": "delivery.",
    "my money back": "Refund",
    "hello": "greeting",
    "": "I am sorry, but as a language model I cannot tell you which of the labels it is",
}
ROWS = [Row.of(question) for question in SAYS]


class ScriptedTeacher:
    """Says what the script says, and remembers what it was asked."""

    def __init__(self, template: Template, fail_after: int | None = None) -> None:
        self.template, self.asked, self._fail_after = template, 0, fail_after

    @property
    def identity(self) -> dict[str, str]:
        return {"engine": "script"}

    def answer(self, rows: Sequence[Row], sampling: Sampling) -> list[Generation]:
        if self.asked == self._fail_after:
            raise KeyboardInterrupt
        self.asked += len(rows)
        return [Generation(SAYS[row.question], (), "stop", 0) for row in rows]


def ask(teacher: ScriptedTeacher, work: Path, rows: Sequence[Row] = ROWS) -> Answered:
    asked = WeightsTeacher("scripted", dict, lambda rows, params, work: teacher, chunk_rows=2)  # type: ignore[arg-type,return-value]
    return ask_rows(asked, rows, TASK, AskParams(max_new_tokens=8), work)


def test_good_answers_take_the_tasks_form_and_others_keep_their_text_and_reason(template: Template, tmp_path: Path) -> None:
    answered = ask(ScriptedTeacher(template), tmp_path)
    assert [(row.question, row.answer) for row in answered.rows] == [("where is it", "Delivery"), ("my money back", "Refund")]
    assert [(row.question, raw, reason) for row, raw, reason in answered.rejected] == [
        ("hello", "greeting", "not a label: 'greeting'"),
        ("", SAYS[""], "not a label: 'I am sorry, but as a language model I cannot tell you whi...'"),
    ]
    assert answered.reasons == {"not a label": 2}
    assert answered.raw == {row.id: SAYS[row.question] for row in ROWS}


def test_an_interrupted_run_asks_only_the_rest(template: Template, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        ask(ScriptedTeacher(template, fail_after=2), tmp_path)
    second = ScriptedTeacher(template)
    answered = ask(second, tmp_path)
    assert second.asked == 2
    assert answered.raw == {row.id: SAYS[row.question] for row in ROWS}


def test_a_question_that_occurs_twice_is_asked_once(template: Template, tmp_path: Path) -> None:
    teacher = ScriptedTeacher(template)
    again = ROWS[0].with_answer("Refund")
    answered = ask(teacher, tmp_path, [ROWS[0], ROWS[1], again])
    assert teacher.asked == 2
    assert [row.answer for row in answered.rows] == ["Delivery", "Refund", "Delivery"]


def test_too_few_usable_answers_stop_the_run_and_show_some(template: Template, tmp_path: Path) -> None:
    answered = ask(ScriptedTeacher(template), tmp_path)
    check_success(answered.given, 0.5)
    with pytest.raises(DataError, match="only 2 of 4 answers") as caught:
        check_success(answered.given, 0.51)
    message = str(caught.value)
    assert "{'not a label': 2}" in message
    assert 'for example "greeting"; "I am sorry' in message
    assert "lower answers.min_success" in message


def test_no_rows_are_no_failure(template: Template, tmp_path: Path) -> None:
    check_success(ask(ScriptedTeacher(template), tmp_path, []).given, 1.0)


class CutTeacher(ScriptedTeacher):
    """Needs as many tokens as its answer has words, and has room for eight words in all."""

    def answer(self, rows: Sequence[Row], sampling: Sampling) -> list[Generation]:
        if sampling.max_new_tokens > 8:
            raise DataError("the prompt does not fit")
        self.asked += len(rows)
        found = [row.question.split() for row in rows]
        ends = ["length" if len(words) > sampling.max_new_tokens else "stop" for words in found]
        return [Generation(" ".join(words[: sampling.max_new_tokens]), (), end, 0) for words, end in zip(found, ends, strict=True)]


@pytest.mark.parametrize(
    ("question", "most", "answer", "reason", "times"),
    [
        ("one two", 2, "one two", None, 1),
        ("one two three four", 2, "one two three four", None, 2),
        ("one two three four five", 2, None, "truncated: the answer does not end within 4 tokens", 2),
        ("one two three four five six seven", 6, None, "truncated: the answer does not end within 6 tokens", 1),
    ],
)
def test_a_free_answer_that_is_cut_gets_more_room_once_or_is_none(
    template: Template, tmp_path: Path, question: str, most: int, answer: str | None, reason: str | None, times: int
) -> None:
    teacher = CutTeacher(template)
    asked = WeightsTeacher("cut", dict, lambda rows, params, work: teacher, chunk_rows=2)  # type: ignore[arg-type,return-value]
    [one] = ask_rows(asked, [Row.of(question)], FreeText(), AskParams(max_new_tokens=most), tmp_path).given
    assert (one.answer, one.reason, teacher.asked) == (answer, reason, times)


def test_a_label_is_taken_though_the_answer_is_cut_and_asked_once(template: Template, tmp_path: Path) -> None:
    teacher = CutTeacher(template)
    asked = WeightsTeacher("cut", dict, lambda rows, params, work: teacher, chunk_rows=2)  # type: ignore[arg-type,return-value]
    [one] = ask_rows(asked, [Row.of("refund please")], TASK, AskParams(max_new_tokens=1), tmp_path).given
    assert (one.answer, teacher.asked) == ("Refund", 1)


# With a real, tiny model


@pytest.fixture(scope="module")
def talkative(tiny_model: Path, template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with layers that drown out its embeddings, so that it does not just repeat the last token."""
    folder = tmp_path_factory.mktemp("talkative")
    model = load_model(tiny_model)
    for name, parameter in model.named_parameters():
        if "proj" in name:
            parameter.data *= 12
    model.save_pretrained(folder)
    template.save(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(talkative: Path, template: Template) -> LocalTeacher:
    return LocalTeacher.load(talkative, template, "float32")


def test_a_local_teacher_answers_greedily(teacher: LocalTeacher, talkative: Path, template: Template) -> None:
    import torch

    model, end = load_model(talkative), template.tokenizer.eos_token_id
    expected = []
    for row in ROWS:
        ids = template.prompt_ids(row)
        for _ in range(6):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == end:
                break
        generated = ids[len(template.prompt_ids(row)) :]
        expected.append(template.tokenizer.decode(generated, skip_special_tokens=True).strip())
    assert [one.text.strip() for one in teacher.answer(ROWS, Sampling(6))] == expected
    assert len(set(expected)) == len(ROWS)


def test_a_row_that_does_not_fit_is_set_aside_and_the_others_are_answered(teacher: LocalTeacher, tmp_path: Path) -> None:
    asked = WeightsTeacher("tiny", lambda: {"model": "tiny"}, lambda rows, params, work: teacher, chunk_rows=4)
    rows = [ROWS[0], Row.of("word " * 400), ROWS[1]]
    given = ask_rows(asked, rows, TASK, AskParams(max_new_tokens=6), tmp_path).given
    assert [one.outcome.reply is not None for one in given] == [True, False, True]
    assert str(given[1].reason).startswith("too long: the prompt has ")


def test_draws_at_temperature_differ_and_come_again(teacher: LocalTeacher, tmp_path: Path) -> None:
    def texts(folder: Path, draw: int) -> list[str]:
        asked = WeightsTeacher("tiny", lambda: {"model": "tiny"}, lambda rows, params, work: teacher, chunk_rows=4)
        params = AskParams(max_new_tokens=6, temperature=1.0, draw=draw)
        return [one.raw for one in ask_rows(asked, ROWS, TASK, params, folder).given]

    first = texts(tmp_path / "a", 1)
    assert texts(tmp_path / "b", 1) == first
    assert texts(tmp_path / "c", 2) != first


def test_signals_are_taken_again_only_where_they_are_missing(teacher: LocalTeacher, template: Template, tmp_path: Path) -> None:
    rows = [row.with_answer("Delivery") for row in ROWS]
    first = dict(signal_rows(teacher, rows, template, TopKForm(4), chunk_rows=2, work=tmp_path))
    chunks = sorted(tmp_path.iterdir())
    assert len(chunks) == 2
    chunks[0].unlink()
    kept = chunks[1].stat().st_mtime_ns
    second = dict(signal_rows(teacher, rows[::-1], template, TopKForm(4), chunk_rows=2, work=tmp_path))
    assert chunks[1].stat().st_mtime_ns == kept
    assert sorted(tmp_path.iterdir()) == chunks
    assert list(first) == list(second)
    for key, signal in first.items():
        assert np.array_equal(signal.ids, second[key].ids)
        assert np.array_equal(signal.logprobs, second[key].logprobs)

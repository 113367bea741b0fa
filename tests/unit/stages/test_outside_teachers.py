"""Stages with a teacher that is no model of the run: an endpoint, recorded answers, an ensemble of these."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slmops.config import Recipe, build, load_recipe
from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import ConfigError, FingerprintError
from slmops.files import read_jsonl, write_jsonl
from slmops.models.resolve import resolve
from slmops.preflight import check_teacher
from slmops.signals.store import SignalStore
from slmops.stages.answering import RunTeacher, answer, take_signals
from slmops.stages.context import MODEL, Context, ModelAt, rows_of
from slmops.stages.measuring import load_system
from slmops.stages.outside import measure_answers, reply_signals
from slmops.stages.preparing import prepare_data
from slmops.stages.teaching import cut_student, distill_model, fingerprints
from slmops.teachers.logprobs import certain_signal, reply_signal
from slmops.testing.faults import FaultServer
from slmops.workspace import StageResult, Workspace
from tests.pipeline.tiny_line import SENTENCES, write_recipe

STARTS = {sentence.split(" {n}")[0]: label for label, sentence in SENTENCES.items()}


def knows(messages: Sequence[Mapping[str, str]]) -> str:
    """The label of a question; one in eight is wrong."""
    start, _, number = messages[-1]["content"].rpartition(" ")
    return "refund" if int(number) % 8 == 7 else STARTS[start]


@pytest.fixture
def context(tmp_path: Path, tiny_model: Path) -> Any:
    def make(teacher: Mapping[str, Any], **changes: Any) -> Context:
        file = write_recipe(tmp_path, tiny_model, teacher=dict(teacher), student={"model": str(tiny_model)}, **changes)
        recipe = load_recipe(file)
        check_teacher(recipe)
        return Context(recipe, Workspace(recipe.output_path))

    return make


def prepare(context: Context) -> StageResult:
    student = Path(str(context.recipe.student.model))
    return prepare_data(context, ModelAt(student, str(student)))


def answered(context: Context) -> tuple[RunTeacher, StageResult, StageResult]:
    teacher, data = RunTeacher(context, None), prepare(context)
    return teacher, data, answer(context, teacher, data)


def api(server: FaultServer, **more: Any) -> dict[str, Any]:
    return {"model": "m", "api": {"base_url": server.url, "price_input": 1.0, "price_output": 2.0, **more}}


def test_an_endpoint_answers_the_rows_and_is_measured_on_the_test_rows(context: Any) -> None:
    with FaultServer(answer=knows) as server:
        run = context(api(server))
        teacher, data, answers = answered(run)
        assert server.paid == 4 * (8 + 24 + 3)
        measured = measure_answers(run, teacher, data)
    assert server.paid == 4 * (8 + 24 + 3 + 10)
    assert len(rows_of(answers, "training")) == 4 * (8 + 24)
    assert answers.facts["right"]["train"] == pytest.approx(1 - 3 / 32)
    assert answers.facts["calls"] == 140
    assert answers.facts["cost"] > 0
    line = read_jsonl(answers.path / "answers.jsonl")[0]
    assert (line["teacher"], line["gold"], line["answer"]) == ("m", None, line["teacher_answer"])
    system = load_system(run, "teacher", measured, data, None)
    assert system.quality == system.measures["accuracy"] == pytest.approx(1 - 3 / 40)
    assert 0 < system.measures["latency_p50_ms"] < 5000
    assert 0 < system.measures["cost_per_million"] < 1000
    assert "memory_mb" not in system.measures


def test_the_test_rows_gold_answers_choose_nothing(context: Any) -> None:
    times: Counter[str] = Counter()

    def every_label_in_turn(messages: Sequence[Mapping[str, str]]) -> str:
        question = messages[-1]["content"]
        times[question] += 1
        return list(SENTENCES)[(len(question) + times[question]) % 4]

    with FaultServer(answer=every_label_in_turn) as server:
        run = context({**api(server), "combine": {"name": "best-of-n", "n": 4}})
        data = prepare(run)
        measured = measure_answers(run, RunTeacher(run, None), data)
    assert server.paid == 160
    assert load_system(run, "teacher", measured, data, None).quality < 0.6  # one of the four draws is right every time


@pytest.mark.parametrize(("source", "rows", "labels"), [("gold", 32, {None}), ("agree", 29, {None}), ("teacher", 32, {"refund"})])
def test_what_labelled_rows_train_on(context: Any, source: str, rows: int, labels: set[str | None]) -> None:
    with FaultServer(answer=knows) as server:
        run = context(api(server), answers={"max_new_tokens": 8, "label_source": source})
        _, data, answers = answered(run)
    gold = {row.id: row.answer for row in rows_of(data, "train")}
    trained = [row for row in rows_of(answers, "training") if row.id in gold]
    assert len(trained) == rows
    assert {row.answer if row.answer != gold[row.id] else None for row in trained} - {None} == labels - {None}
    reasons = [line["reason"] for line in read_jsonl(answers.path / "rejected.jsonl")]
    assert reasons == (["teacher disagrees: says 'refund'"] * 3 if source == "agree" else [])


def test_log_probabilities_become_signals_where_the_students_tokens_are_the_same(context: Any, template: Template) -> None:
    with FaultServer(answer=knows) as server:
        run = context(api(server, top_logprobs=1), signals={"k": 4}, chat_template="compact")
        teacher, data, answers = answered(run)
    student = cut_student(run, ModelAt(resolve(run.recipe.student.model).path, "base"), data, answers)
    signals = reply_signals(run, teacher, data, answers, student)
    rows = rows_of(answers, "training")
    single = [row for row in rows if len(template.encode(row).answer_ids) == 2]  # one token, and the end
    assert signals.facts["rows"] == len(rows)
    given = {row.id for row in rows_of(data, "train")} | {row.id for row in rows_of(data, "pool")}
    assert {row.id for row in rows} <= given
    matched = [row for row in single if knows(row.messages) == row.answer]
    assert signals.facts["matched"] == len(matched)
    assert signals.facts["usable"] == (len(matched) * 2 >= len(rows))
    store = SignalStore.open(signals.path, fingerprints(run, teacher.id, template, data, answers))
    assert all(len(store.get(row)) == len(template.encode(row).answer_ids) for row in rows)


def test_an_api_draws_no_tokens(context: Any) -> None:
    with FaultServer(answer=knows) as server, pytest.raises(ConfigError, match=r"signals\.form: an API says its likeliest tokens"):
        context(api(server, top_logprobs=1), signals={"form": "sampled"})


def test_recorded_answers_teach_and_without_the_test_rows_the_teacher_is_not_measured(context: Any, tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    questions = [{"role": "user", "content": sentence.format(n=n)} for sentence in SENTENCES.values() for n in range(35)]
    write_jsonl(log, [{"input": turn["content"], "teacher_output": knows([turn])} for turn in questions])
    run = context({"model": str(log)})
    teacher, data, answers = answered(run)
    assert len(rows_of(answers, "training")) == 4 * (8 + 24)
    assert measure_answers(run, teacher, data).facts["measured"] is False
    with log.open("a", encoding="utf-8") as file:
        for sentence in SENTENCES.values():
            file.writelines(json.dumps({"input": sentence.format(n=n), "teacher_output": "refund"}) + "\n" for n in range(35, 45))
    teacher = RunTeacher(run, None)
    measured = measure_answers(run, teacher, data)
    assert measured.facts["measured"] is True
    assert measured.artifact.manifest.measures["accuracy"] == 0.25
    assert "latency_p50_ms" not in measured.artifact.manifest.measures


@pytest.mark.parametrize("form", ["topk", "sampled"])
def test_a_mixture_gives_signals(context: Any, tiny_model: Path, template: Template, form: str) -> None:
    both = {"members": [{"model": str(tiny_model)}, {"model": str(tiny_model), "weight": 2}], "combine": {"name": "mixture"}}
    run = context(both, answers={"min_success": 0, "max_new_tokens": 4}, signals={"form": form, "k": 4}, chat_template="compact")
    teacher, data, answers = answered(run)
    assert teacher.distribution
    signals = take_signals(run, teacher, data, answers)
    store = SignalStore.open(signals.path, fingerprints(run, teacher.id, template, data, answers))
    row = rows_of(data, "train")[0]
    assert len(store.get(row)) == len(template.encode(row).answer_ids)
    assert signals.facts["bytes_per_token"] == round(store.bytes_per_token, 1)
    for name, given in (("data", (answers, answers)), ("teacher", (data, answers))):
        other = fingerprints(run, "another" if name == "teacher" else teacher.id, template, *given)
        with pytest.raises(FingerprintError, match=f"another {name}\n"):
            SignalStore.open(signals.path, other)
    base = cut_student(run, ModelAt(tiny_model, "base"), data, answers)
    section = run.recipe.training.model_copy(update={"max_steps": 1})
    inputs = {"data": data, "answers": answers, "signals": signals}
    trained = distill_model(run, "distilled", ModelAt(base.path / MODEL, base.id), inputs, section)
    assert (trained.facts["steps"], trained.facts["rows"]) == (1, len(rows_of(answers, "training")))


def test_the_teachers_reasoning_is_kept_and_trained_as_a_second_task(tmp_path: Path, tiny_model: Path) -> None:
    def reasons(messages: Sequence[Mapping[str, str]]) -> str:
        label = "neutral" if "Birds" in messages[-1]["content"] else "entailment"
        return f"The first text says so.\nAnswer: {label}"

    lines = [{"input": f"It rains {n} times. The street is wet.", "output": "entailment"} for n in range(12)]
    lines += [{"input": f"It rains {n} times. Birds sing.", "output": "contradiction"} for n in range(12)]
    write_jsonl(tmp_path / "nli.jsonl", lines)
    with FaultServer(answer=reasons) as server:
        values = {
            "name": "n",
            "task_type": "nli",
            "task": {"chain_of_thought": True, "rationales": "train"},
            "output_path": str(tmp_path / "out"),
            "data": {"source": {"name": "files", "train": str(tmp_path / "nli.jsonl")}},
            "teacher": {**api(server), "max_new_tokens": 64},
            "student": {"model": str(tiny_model)},
        }
        run = Context(build(Recipe, values, where="test"), Workspace(tmp_path / "out"))
        _, data, answers = answered(run)
        assert all("step by step" in body["messages"][0]["content"] for body in server.bodies)
        assert {body["max_tokens"] for body in server.bodies} == {64}
    gold = {row.id: row for row in rows_of(data, "train")}
    trained = rows_of(answers, "training")
    labels = [row for row in trained if row.id in gold]
    second = [row for row in trained if row.id not in gold]
    assert [(row.messages, row.answer) for row in labels] == [(row.messages, row.answer) for row in gold.values()]
    assert len(second) == sum(row.answer == "entailment" for row in gold.values())  # where the reasoning led to the gold answer
    assert {row.answer for row in second} == {"The first text says so."}
    assert all("Explain step by step" in row.messages[-1]["content"] for row in second)


def test_every_turn_of_the_assistant_is_a_training_target(tmp_path: Path, tiny_model: Path) -> None:
    def turn(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    chats = [
        [turn("user", f"hello {n}"), turn("assistant", f"good day {n}"), turn("user", "coffee?"), turn("assistant", f"black {n}")]
        for n in range(12)
    ]
    write_jsonl(tmp_path / "chats.jsonl", [{"messages": chat} for chat in chats])
    with FaultServer(answer=lambda messages: "with milk") as server:
        values = {
            "name": "c",
            "task_type": "conversation",
            "output_path": str(tmp_path / "out"),
            "data": {"source": {"name": "files", "train": str(tmp_path / "chats.jsonl")}},
            "teacher": api(server),
            "student": {"model": str(tiny_model)},
        }
        run = Context(build(Recipe, values, where="test"), Workspace(tmp_path / "out"))
        _, data, answers = answered(run)
    rows = rows_of(data, "train")
    trained = [(len(row.messages), row.answer) for row in rows_of(answers, "training")]
    assert sorted(trained) == sorted([*((3, row.answer) for row in rows), *((1, row.messages[1]["content"]) for row in rows)])


@pytest.mark.parametrize(
    ("teacher", "gates", "problem"),
    [
        ({"model": "gpt-4o", "tune": {"epochs": 1}}, [], "only one model on this machine can be tuned"),
        ({"model": "gpt-4o"}, ["size_mb <= 0.2 * teacher"], "size_mb of this teacher is not known"),
        ({"model": "gpt-4o"}, ["latency_p50_ms <= 0.5 * teacher-quantized"], "is not known"),
        ({"model": "gpt-4o", "combine": {"name": "best-of-n", "m": 3}}, [], "m: unknown key; known: judge, n"),
        ({"model": "gpt-4o", "api": {"prise_input": 3}}, [], "did you mean 'price_input'"),
        ({"members": [{"model": "gpt-4o"}, {"model": "gpt-4"}]}, [], "several teachers need combine"),
    ],
)
def test_what_such_a_teacher_cannot_do_is_refused_before_anything_is_paid(
    context: Any, teacher: dict[str, Any], gates: list[str], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        context(teacher, gates=gates)


def test_a_recipe_has_either_a_model_or_members() -> None:
    from slmops.sections import TeacherSection

    for values in ({}, {"model": "a", "members": [{"model": "b"}]}):
        with pytest.raises(ConfigError, match="give either model or members"):
            build(TeacherSection, values, where="teacher")


# Log-probabilities by themselves


def token(text: str, logprob: float, *top: tuple[str, float]) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "top": [list(pair) for pair in top]}


def test_a_reply_whose_tokens_are_the_students_is_its_distribution(template: Template) -> None:
    row = Row.of("where is it", "delivery")
    ids = template.encode(row).answer_ids
    texts = [template.tokenizer.decode([number]) for number in ids[:-1]]
    tokens = [token((" " if place == 0 else "") + text, -0.25, (text, -0.25), ("!", -2.0)) for place, text in enumerate(texts)]
    signal = reply_signal(template, row, tokens, 4)
    assert signal is not None
    other = template.tokenizer("!", add_special_tokens=False)["input_ids"][0]
    assert signal.ids[0][:2].tolist() == [ids[0], other]
    assert signal.logprobs[0][:2].tolist() == [-0.25, -2.0]
    masses = np.exp(signal.logprobs.astype(float)).sum(-1) + np.exp(signal.tail.astype(float))
    assert masses.tolist() == pytest.approx([1.0] * len(ids), abs=1e-3)
    assert all(len(set(line)) == 4 for line in signal.ids.tolist())
    assert signal.ids[-1][0] == template.tokenizer.eos_token_id


def test_a_reply_in_other_tokens_is_none_of_the_students(template: Template) -> None:
    row = Row.of("where is it", "delivery")
    assert reply_signal(template, row, [token("del", -0.1), token("ivery!", -0.1)], 4) is None
    assert reply_signal(template, row, [], 4) is None


def test_to_learn_from_a_certain_signal_is_to_learn_from_the_answer(template: Template) -> None:
    import torch

    from slmops.signals.tensors import join
    from slmops.training.objectives import Answers, CrossEntropy, ForwardKL

    row = Row.of("where is it", "delivery")
    signal, ids = certain_signal(template, row, 4), template.encode(row).answer_ids
    answers = Answers(
        torch.randn(len(ids), 384),
        torch.tensor(ids),
        join([signal]),
    )
    assert torch.allclose(ForwardKL()(answers), CrossEntropy()(answers), atol=1e-3)

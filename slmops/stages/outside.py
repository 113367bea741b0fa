"""Teachers that are no model of this run: what their log-probabilities teach, and how they do on the test rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slmops.artifact import StageKey
from slmops.data.rows import Row
from slmops.evaluation.endpoint import cost_per_million
from slmops.evaluation.quantiles import percentile
from slmops.evaluation.systems import RESULT, judged
from slmops.files import read_jsonl, write_json
from slmops.progress import say
from slmops.stages.answering import LABELLED, RunTeacher
from slmops.stages.context import MODEL, Context, rows_of
from slmops.stages.teaching import TRAINING, fingerprints
from slmops.tasks.base import Task
from slmops.teachers.answered import Answered
from slmops.teachers.api import ApiTeacher
from slmops.teachers.asking import ask_rows
from slmops.teachers.recorded import NO_ANSWER
from slmops.teachers.spec import TeacherSpec
from slmops.workspace import Made, StageResult

_LEAST_MATCHED = 0.5


@dataclass(frozen=True)
class Answerer:
    """One who answers from outside, as the report names the models of a run."""

    reference: str
    source: str
    license: str
    fingerprint: str


def answerers(spec: TeacherSpec, fingerprint: str) -> list[Answerer]:
    """Who answers, for the report."""
    return [Answerer(member.model, *_said_of(spec, number), fingerprint) for number, member in enumerate(spec.members)]


def reply_signals(
    context: Context, teacher: RunTeacher, data: StageResult, answers: StageResult, student: StageResult
) -> StageResult:
    """Signals from the log-probabilities of replies, for a student whose tokenizer makes the same tokens.

    ``facts["usable"]`` says whether enough answers have them; rows that have none are learned as answers alone.
    """
    k = context.recipe.signals.k
    parents = {"teacher": teacher.id, "data": data.id, "answers": answers.id, "student": student.id}
    key = StageKey("signals", "signals", 3, {"k": k, "from": "replies", **context.template_key}, parents)

    def make(folder: Path, work: Path) -> Made:
        from slmops.signals.store import row_key, write_signals
        from slmops.teachers.logprobs import certain_signal, reply_signal

        template = context.template(student.path / MODEL)
        lines = [line for name in ("answers", LABELLED) for line in read_jsonl(answers.path / f"{name}.jsonl")]
        given = {row_key(Row.from_dict(line)): line["logprobs"] for line in lines if "logprobs" in line}
        rows = rows_of(answers, TRAINING)
        found = [reply_signal(template, row, given[row_key(row)], k) if row_key(row) in given else None for row in rows]
        signals = (
            (row_key(row), certain_signal(template, row, k) if signal is None else signal)
            for row, signal in zip(rows, found, strict=True)
        )
        write_signals(folder, signals, fingerprints(context, teacher.id, template, data, answers))
        matched = sum(signal is not None for signal in found)
        usable = matched >= _LEAST_MATCHED * len(rows)
        say(f"  log-probabilities of {matched} of {len(rows)} answers fit the student's tokens" + ("" if usable else ": too few"))
        return Made({"rows": len(rows), "matched": matched, "usable": usable})

    return context.workspace.stage(key, make)


def measure_answers(context: Context, teacher: RunTeacher, data: StageResult) -> StageResult:
    """How a teacher from outside answers the test rows: quality, and of endpoints latency and cost.

    It is asked once a row, without gold answers. ``facts["measured"]`` is false where records lack a test row.
    """
    config = {"max_new_tokens": teacher.params.max_new_tokens, **context.template_key}
    key = StageKey("measure.teacher", "measurement", 2, config, {"teacher": teacher.id, "data": data.id})

    def make(folder: Path, work: Path) -> Made:
        task, rows = context.task(data), rows_of(data, "test")
        asked = [row.with_answer(None) for row in rows]
        found = ask_rows(teacher.open(task), asked, task, teacher.params, work, turns=lambda row: teacher.turns(task, row))
        found.raise_if_stopped(str(context.workspace.root), "teacher.requests.max_cost")
        made = write_answers(found, teacher.spec, task, rows, folder)
        if not made.facts["measured"]:
            say("  some test rows have no recorded answer, so the teacher is not measured")
        return made

    return context.workspace.stage(key, make)


def write_answers(found: Answered, spec: TeacherSpec, task: Task, rows: Sequence[Row], folder: Path) -> Made:
    """Write what a teacher answered as the result of a measurement; ``facts["measured"]`` is false where a row has no record."""
    answers = [one.raw for one in found.given]
    latencies = [1000 * one.outcome.reply.seconds for one in found.given if one.outcome.reply and one.outcome.reply.seconds]
    result = {
        "runtime": "outside",
        "precision": "unknown",
        "latencies_ms": [round(value, 3) for value in latencies],
        **judged(task, answers, rows),
    }
    write_json(folder / RESULT, result)
    measured = not any(one.outcome.reason == NO_ANSWER for one in found.given)
    return Made({**found.facts, "measured": measured}, {**result["quality"], **_times(latencies), **_cost(spec, found)})


def _times(latencies: list[float]) -> dict[str, float]:
    if not latencies:
        return {}
    return {f"latency_p{share}_ms": percentile(latencies, share / 100) for share in (50, 95, 99)}


def _cost(spec: TeacherSpec, found: Answered) -> dict[str, float]:
    """US dollars for a million answers by the tokens of these; unknown for ensembles and where there is no price."""
    member = spec.members[0]
    replies = [one.outcome.reply for one in found.given if one.outcome.reply is not None]
    if spec.combine is not None or member.kind != "api" or not replies:
        return {}
    cost = cost_per_million(ApiTeacher.find(member.model, member.api).model, replies)
    return {} if cost is None else {"cost_per_million": cost}


def _said_of(spec: TeacherSpec, number: int) -> tuple[str, str]:
    """Source and terms of a member."""
    member = spec.members[number]
    if member.kind == "api":
        model = ApiTeacher.find(member.model, member.api).model
        return model.provider, model.terms
    return ("recorded answers", "unknown") if member.kind == "recorded" else ("this machine", "unknown")

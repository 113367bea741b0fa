"""The judge of a run: asked once for all models, paid once, its own cap, loaded once where it is on this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from slmops import preflight
from slmops.artifact import StageKey
from slmops.config import Recipe, build
from slmops.data.rows import Row
from slmops.data.sources import RawSplits
from slmops.errors import ConfigError, TeacherError
from slmops.evaluation.gates import Gate
from slmops.evaluation.systems import RESULT
from slmops.files import read_jsonl, write_json, write_jsonl
from slmops.stages.context import Context
from slmops.stages.judging import VERDICTS, RunJudge, judge_part, plan_judging
from slmops.stages.measuring import load_system
from slmops.teachers.local import LocalTeacher
from slmops.testing.faults import FaultServer
from slmops.workspace import Made, StageResult, Workspace

ROWS = [Row.of(f"what is {number}?", f"it is {number}") for number in range(6)]
ANSWERS = {
    "control": ["no idea"] * 6,
    "distilled": ["it is 0", "it is one", "it is two", "no idea", "", "kind regards"],
}
SHOWN = re.compile(r"Answer A:\n(.*)\n\nAnswer B:\n(.*)\Z", re.DOTALL)


def likes_it(messages: Sequence[Mapping[str, str]]) -> str:
    """The answer that begins with "it" wins, of two the longer one."""
    a, b = ((text.startswith("it"), len(text)) for text in SHOWN.search(messages[-1]["content"]).groups())
    return f"Because.\nVerdict: {'A' if a > b else 'B'}"


def recipe(folder: Path, judge: Mapping[str, Any], **changes: Any) -> Recipe:
    values = {
        "name": "x",
        "task_type": "conversation",
        "output_path": str(folder / "out"),
        "data": {"source": {"name": "files", "train": "train.jsonl"}},
        "teacher": {"model": "gpt-4o"},
        "evaluation": {"judge": dict(judge)},
        **changes,
    }
    return build(Recipe, values, where="test")


def api(server: FaultServer, **more: Any) -> dict[str, Any]:
    return {"model": "j", "api": {"base_url": server.url, "price_input": 1.0, "price_output": 2.0}, **more}


def data_of(folder: Path) -> StageResult:
    write_jsonl(folder / "data" / "test.jsonl", [row.as_dict() for row in ROWS])
    write_json(folder / "data" / "task.json", {})
    return StageResult("data", folder / "data")


def measured(context: Context) -> dict[str, StageResult]:
    """Measurements as the processes of the models leave them behind."""

    def make(answers: list[str]) -> Any:
        def write(folder: Path, work: Path) -> Made:
            result = {"runtime": "torch", "precision": "float32", "answers": answers, "correct": [0] * 6, "latencies_ms": [1.0]}
            write_json(folder / RESULT, {**result, "primary_measure": "token_f1"})
            return Made(measures={"token_f1": 0.25})

        return write

    keys = {name: StageKey(f"measure.{name}", "measurement", 1, {}) for name in ANSWERS}
    return {name: context.workspace.stage(key, make(ANSWERS[name])) for name, key in keys.items()}


def run(folder: Path, judge: Mapping[str, Any]) -> tuple[Context, RunJudge, dict[str, StageResult]]:
    section = recipe(folder, judge)
    context = Context(section, Workspace(section.output_path))
    found = RunJudge.of(context)
    assert found is not None
    return context, found, found.verdicts(measured(context), data_of(folder))


def test_all_models_are_judged_at_once_and_nothing_is_asked_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer(answer=likes_it) as server:
        context, _, verdicts = run(tmp_path, api(server))
        told = capsys.readouterr().err
        assert told.index("18 questions") < told.index("j (the endpoint") < told.index("[judge.control] done")
        assert told.count("terms ") == 1
        assert server.paid == 18  # six rows of one model and three more of the other, in both orders
        again = run(tmp_path, api(server))[2]
        assert {name: result.id for name, result in again.items()} == {name: result.id for name, result in verdicts.items()}
        assert server.paid == 18
        other = run(tmp_path, api(server, rubric="Which is kinder?"))[2]
        assert other["control"].id != verdicts["control"].id
        assert server.paid == 36
    scores = [line["score"] for line in read_jsonl(verdicts["distilled"].path / VERDICTS)]
    assert scores == [0.5, 1.0, 1.0, 0.0, 0.0, 0.0]
    data = data_of(tmp_path)
    system = load_system(context, "distilled", measured(context)["distilled"], data, verdicts["distilled"])
    assert (system.primary_measure, system.quality) == ("win_rate", pytest.approx(2.5 / 6))
    assert system.measures["token_f1"] == pytest.approx(7 / 18)
    assert load_system(context, "distilled", measured(context)["distilled"], data, None).primary_measure == "token_f1"
    part = judge_part(context)
    assert (part["name"], part["wins"], part["losses"], part["same"], part["invalid"]) == ("j", 2, 9, 1, 1)
    assert (part["calls"], part["unread"]) == (18, 0)
    assert part["cost"] > 0


def test_personal_data_in_conversations_and_answers_is_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, "control", ["write to anna.muster@example.org"] * 6)
    with FaultServer(answer=likes_it) as server:
        context, *_ = run(tmp_path, api(server))
        assert b"anna.muster" not in server.received
        assert b"[EMAIL_1]" in server.received
    assert judge_part(context)["masked"] == {"EMAIL": 12}


def test_a_cap_stops_it_and_a_higher_one_goes_on(tmp_path: Path) -> None:
    with FaultServer(answer=likes_it) as server:
        with pytest.raises(TeacherError, match=r"with a higher evaluation\.judge\.requests\.max_cost"):
            run(tmp_path, api(server, requests={"max_cost": 0.002, "max_concurrency": 1}))
        assert 0 < server.paid < 18
        run(tmp_path, api(server, requests={"max_cost": 1}))
        assert server.paid == 18


def test_a_judge_without_verdicts_stops_the_run(tmp_path: Path) -> None:
    with FaultServer(answer=lambda messages: "Both are nice.") as server:
        with pytest.raises(TeacherError, match=r"on only 0 of 18 questions; one of the others: no verdict: 'Both are nice\.'"):
            run(tmp_path, api(server, attempts=1))
        assert server.paid == 18
        context, _, verdicts = run(tmp_path, api(server, attempts=1, min_success=0))
    assert server.paid == 18
    assert judge_part(context)["unread"] == 10
    assert {line["score"] for line in read_jsonl(verdicts["control"].path / VERDICTS)} == {0.5}


def test_a_judge_on_this_machine_is_loaded_once_and_let_go(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []

    def load(*arguments: Any, **options: Any) -> LocalTeacher:
        loaded.append(arguments)
        return real(*arguments, **options)

    real = LocalTeacher.load
    monkeypatch.setattr(LocalTeacher, "load", load)
    judge = {"model": str(tiny_model), "attempts": 1, "min_success": 0, "max_new_tokens": 8, "engine": "torch"}
    context, found, _ = run(tmp_path, judge)
    assert (len(loaded), found._opened) == (1, [])
    part = judge_part(context)
    assert part["unread"] + part["contradicted"] > 0  # it is a random model
    assert "cost" not in part


def test_recorded_verdicts_judge_too(tmp_path: Path) -> None:
    with FaultServer(answer=likes_it) as server:
        run(tmp_path / "first", api(server))
        asked = [
            {"messages": [*body["messages"], {"role": "assistant", "content": likes_it(body["messages"])}]}
            for body in server.bodies
        ]
    write_jsonl(tmp_path / "verdicts.jsonl", asked)
    verdicts = run(tmp_path / "second", {"model": str(tmp_path / "verdicts.jsonl")})[2]
    assert sum(line["score"] for line in read_jsonl(verdicts["distilled"].path / VERDICTS)) == 2.5


def test_what_it_will_cost_is_known_before(tmp_path: Path) -> None:
    with FaultServer() as server:
        plan = plan_judging(recipe(tmp_path, api(server)), RawSplits([], [], [], ROWS))
        assert (plan.calls, server.requests) == (2 * 6 * 5, 0)  # teacher, three students, what is packaged
        assert 0 < plan.cost < plan.most_cost
        with pytest.raises(ConfigError, match="are labels, right or wrong: accuracy decides"):
            plan_judging(recipe(tmp_path, api(server), task_type="classification"), RawSplits([], [], [], ROWS))
    assert plan_judging(recipe(tmp_path, {"model": str(tmp_path)}), RawSplits([], [], [], ROWS)) is None


@pytest.mark.parametrize(
    ("judge", "problem"),
    [
        ({"model": "gpt-4o", "rubrik": "x"}, "did you mean 'rubric'"),
        ({}, "give either model or members"),
        ({"model": "gpt-4o", "members": [{"model": "gpt-4"}]}, "give either model or members"),
        ({"model": "m", "api": {"base_url": "http://127.0.0.1:1/v1"}, "requests": {"max_cost": 1}}, "nobody has said what m costs"),
        ({"model": "gpt-4o", "combine": {"name": "best-of-n", "m": 3}}, "m: unknown key; known: judge, n"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_refused_first(tmp_path: Path, judge: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        preflight.check_judge(recipe(tmp_path, judge))


def test_a_missing_key_is_noticed_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="export OPENAI_API_KEY="):
        preflight.check_keys(recipe(tmp_path, {"model": "gpt-4o"}))


def test_a_gate_on_the_win_rate_needs_a_judge(tmp_path: Path) -> None:
    data = data_of(tmp_path)
    write_jsonl(data.path / "train.jsonl", [ROWS[0].as_dict()])
    gates = [Gate.parse("win_rate >= 0.4"), Gate.parse("token_f1 >= 0.5 * teacher")]
    judged = Context(recipe(tmp_path, {"model": "gpt-4o"}), Workspace(tmp_path))
    preflight.check_gates(gates, judged, data)
    alone = Context(recipe(tmp_path, {}, evaluation={}), Workspace(tmp_path))
    with pytest.raises(ConfigError, match=r"name a judge under evaluation\.judge"):
        preflight.check_gates(gates, alone, data)
    write_json(data.path / "task.json", {"labels": ["it is 0", "b"]})
    labels = Context(recipe(tmp_path, {"model": "gpt-4o"}, task_type="classification"), Workspace(tmp_path))
    with pytest.raises(ConfigError, match="labels, right or wrong"):
        preflight.check_gates([], labels, data)

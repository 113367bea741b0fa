"""Several teachers as one: vote, best of n, judge, route, mixture."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from slmops.config import build
from slmops.data.rows import Row
from slmops.errors import ConfigError, UsageError
from slmops.runtimes.base import Sampling
from slmops.tasks.base import Task
from slmops.tasks.classification import Classification
from slmops.tasks.generation import Generation
from slmops.teachers.base import Answers, Request, Teacher
from slmops.teachers.catalogue import ApiOptions
from slmops.teachers.combiners import COMBINERS, Combiner, Tools
from slmops.teachers.opening import open_teacher
from slmops.teachers.plan import total
from slmops.teachers.replies import AskParams
from slmops.teachers.requests import RequestOptions
from slmops.teachers.spec import Member, Rule, TeacherSpec
from slmops.testing.faults import FaultServer
from tests.unit.teachers.scripted import Say, Scripted

TASK = Classification(labels=("delivery", "refund", "address"))
PARAMS = AskParams(max_new_tokens=8)


def members(*names: str, **weights: float) -> list[Member]:
    return [Member(model=name, weight=weights.get(name, 1.0)) for name in names]


def ensemble(
    combine: str, says: Mapping[str, str | Say], seats: Sequence[Member] | None = None, task: Task = TASK, **options: Any
) -> tuple[Teacher, dict[str, Scripted]]:
    """An ensemble of scripted teachers, which say one thing or what a function says."""
    opened: dict[str, Scripted] = {}

    def open_member(member: Member) -> Teacher:
        say = says[member.model]
        return opened.setdefault(member.model, Scripted(member.model, say if callable(say) else lambda request: str(say)))

    def load(member: Member) -> Any:
        raise AssertionError

    combiner: Combiner = build(COMBINERS.get(combine), options, where="test")
    own = seats if seats is not None else members(*(name for name in says if not name.startswith("judge")))
    return combiner.over(own, Tools(task, open_member, load, 4)), opened


def asked(teacher: Teacher, work: Path, *rows: Row) -> Answers:
    return teacher.ask([Request(row.id, row.messages, PARAMS, row) for row in rows or (Row.of("where is it"),)], work)


def only(answers: Answers) -> tuple[str | None, str | None, float | None]:
    (outcome,) = answers.outcomes
    return (outcome.reply.text if outcome.reply else outcome.reason), outcome.teacher, outcome.agreement


# Vote


def test_the_majority_of_the_valid_answers_wins_by_their_normal_form(tmp_path: Path) -> None:
    teacher, _ = ensemble("vote", {"a": "a joke", "b": "Refund.", "c": "delivery", "d": "refund"})
    assert only(asked(teacher, tmp_path)) == ("Refund.", "b", 0.5)


def test_a_tie_goes_by_order_or_by_weight(tmp_path: Path) -> None:
    says = {"a": "delivery", "b": "refund"}
    assert only(asked(ensemble("vote", says)[0], tmp_path)) == ("delivery", "a", 0.5)
    heavy = members("a", "b", b=2)
    assert only(asked(ensemble("vote", says, heavy)[0], tmp_path)) == ("delivery", "a", 0.5)
    assert only(asked(ensemble("vote", says, heavy, ties="weight")[0], tmp_path)) == ("refund", "b", 0.5)


def test_without_a_valid_answer_the_first_one_stays_to_be_rejected(tmp_path: Path) -> None:
    assert only(asked(ensemble("vote", {"a": "", "b": "a joke"})[0], tmp_path)) == ("a joke", "b", 0.0)
    assert only(asked(ensemble("vote", {"a": "", "b": ""})[0], tmp_path)) == ("empty answer", "a", 0.0)


def test_disagreements_costs_and_faults_are_in_the_facts(tmp_path: Path) -> None:
    teacher, _ = ensemble(
        "vote", {"a": "refund", "b": lambda request: "refund" if "money" in request.messages[0]["content"] else "address"}
    )
    rows = [Row.of("my money"), Row.of("where is it"), Row.of("it moved")]
    facts = asked(teacher, tmp_path, *rows).facts
    assert facts["disagreements"] == {"share": pytest.approx(2 / 3), "rows": [rows[1].id, rows[2].id]}
    assert facts["calls"] == 6
    assert facts["cost"] == pytest.approx(0.6)
    assert facts["faults"] == {"timeout": 2}
    assert [member["teacher"] for member in facts["members"]] == [{"scripted": "a"}, {"scripted": "b"}]


def test_a_row_that_a_member_did_not_get_to_stays_open(tmp_path: Path) -> None:
    teacher, _ = ensemble("vote", {"a": "refund", "b": lambda request: None if request.id == ROW.id else "refund"})
    answers = asked(teacher, tmp_path, ROW, Row.of("other"))
    assert [outcome.settled for outcome in answers.outcomes] == [False, True]
    assert answers.stopped == "b stopped"


ROW = Row.of("my money back", "refund")


# Best of n


def draws(*texts: str) -> Say:
    return lambda request: texts[request.params.draw]


def test_of_several_draws_the_right_one_is_taken(tmp_path: Path) -> None:
    teacher, opened = ensemble("best-of-n", {"a": draws("delivery", "delivery", "Refund", "delivery")}, n=4)
    assert only(asked(teacher, tmp_path, ROW)) == ("Refund", "a", 0.25)
    assert [request.params.temperature for request in opened["a"].asked] == [0, 0.8, 0.8, 0.8]


def test_without_a_gold_answer_what_most_valid_draws_say(tmp_path: Path) -> None:
    teacher, _ = ensemble("best-of-n", {"a": draws("joke", "delivery", "refund", "refund")}, n=4)
    assert only(asked(teacher, tmp_path)) == ("refund", "a", 0.5)


def test_a_verifier_of_the_task_sorts_out(tmp_path: Path) -> None:
    task = Generation.model_validate({"assertions": [{"max_words": 3}]})
    teacher, _ = ensemble("best-of-n", {"a": draws("far too many words here", "short enough")}, task=task, n=2)
    assert only(asked(teacher, tmp_path)) == ("short enough", "a", 0.5)


def test_a_judge_chooses_where_neither_gold_nor_verifier_does(tmp_path: Path) -> None:
    def best(request: Request) -> str:
        found = re.search(r"Answer (\d):\nclear", request.messages[1]["content"])
        return f"Verdict: {found.group(1) if found else 9}"

    says = {"a": draws("dull", "clear", "dim"), "judge-j": best}
    teacher, opened = ensemble("best-of-n", says, task=Generation(), n=3, judge={"model": "judge-j"})
    assert only(asked(teacher, tmp_path)) == ("clear", "a", pytest.approx(1 / 3))
    asked(teacher, tmp_path, Row.of("say clear", "clear"))
    assert len(opened["judge-j"].asked) == 1  # the second row has a gold answer


# Judge


def test_a_judge_sees_the_answers_in_an_order_of_its_own_for_each_row(tmp_path: Path) -> None:
    says = {"a": "delivery", "b": "refund", "c": "a joke", "judge-j": "It fits.\nVerdict: 2"}
    teacher, opened = ensemble("judge", says, judge={"model": "judge-j"})
    answers = asked(teacher, tmp_path, *(Row.of(f"question {number}") for number in range(20)))
    shown = [re.findall(r"Answer \d:\n(\w+)", request.messages[1]["content"]) for request in opened["judge-j"].asked]
    assert {tuple(order) for order in shown} == {("delivery", "refund"), ("refund", "delivery")}
    assert [outcome.reply.text for outcome in answers.outcomes if outcome.reply] == [order[1] for order in shown]
    assert {outcome.agreement for outcome in answers.outcomes} == {1 / 3}


def test_a_judge_is_not_asked_where_there_is_nothing_to_choose(tmp_path: Path) -> None:
    says = {"a": "Refund", "b": "refund", "judge-j": "Verdict: 1"}
    teacher, opened = ensemble("judge", says, judge={"model": "judge-j"})
    assert only(asked(teacher, tmp_path)) == ("Refund", "a", 1.0)
    assert opened["judge-j"].asked == []


def test_an_invalid_verdict_is_asked_again_and_then_the_first_answer_stands(tmp_path: Path) -> None:
    says = {"a": "delivery", "b": "refund", "judge-j": lambda request: "Verdict: 3" if request.params.draw < 2 else "Verdict: 1"}
    teacher, opened = ensemble("judge", says, judge={"model": "judge-j"})
    asked(teacher, tmp_path)
    assert [(request.params.draw, request.params.temperature > 0) for request in opened["judge-j"].asked] == [
        (0, False),
        (1, True),
        (2, True),
    ]
    teacher, _ = ensemble("judge", {**says, "judge-j": "I like both"}, judge={"model": "judge-j"})
    answers = asked(teacher, tmp_path)
    assert only(answers)[:2] == ("delivery", "a")
    assert answers.facts["unjudged"] == 1


# Route


def test_a_rule_says_who_answers_and_one_takes_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps({"text": "x", "channel": name}) for name in ("mail", "phone")), encoding="utf-8")
    seats = [
        Member(model="rest"),
        Member(model="by-label", when=Rule(label=("refund",))),
        Member(model="by-pattern", when=Rule(matches="(?i)parcel")),
        Member(model="by-length", when=Rule(min_characters=30)),
        Member(model="by-column", when=Rule(column="channel", equals=("phone",), max_characters=6)),
    ]
    teacher, _ = ensemble("route", {seat.model: "refund" for seat in seats}, seats)
    rows = {
        "by-label": Row.of("Parcel lost", "refund", f"{file}:1"),
        "by-pattern": Row.of("my PARCEL", "delivery", f"{file}:1"),
        "by-length": Row.of("a question of some length indeed", None, f"{file}:1"),
        "by-column": Row.of("hello", None, f"{file}:2"),
        "rest": Row.of("hello there", None, f"{file}:2"),
    }
    answers = asked(teacher, tmp_path, *rows.values())
    assert [outcome.teacher for outcome in answers.outcomes] == list(rows)
    assert answers.facts["routed"] == dict.fromkeys(["by-label", "by-pattern", "by-length", "by-column", "rest"], 1)
    with pytest.raises(ConfigError, match="is of no file, so it has no column 'channel'"):
        asked(teacher, tmp_path, Row.of("hi"))


def test_a_route_needs_one_who_takes_the_rest() -> None:
    with pytest.raises(ConfigError, match="needs one member without a rule"):
        ensemble("route", {"a": "", "b": ""})


@pytest.mark.parametrize(
    ("rule", "problem"),
    [({}, "a rule needs one of"), ({"column": "x"}, "go together"), ({"matches": "("}, "no regular expression")],
)
def test_a_rule_that_says_nothing_is_refused(rule: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        build(Rule, rule, where="when")


# All of them


@pytest.mark.parametrize("combine", ["vote", "judge"])
def test_one_alone_is_no_ensemble(combine: str) -> None:
    options = {"judge": {"model": "judge-j"}} if combine == "judge" else {}
    with pytest.raises(ConfigError, match="at least two members"):
        ensemble(combine, {"a": "", "judge-j": ""}, **options)


def test_the_identity_changes_with_members_weights_and_options() -> None:
    def identity(*seats: Member, **options: Any) -> str:
        return json.dumps(ensemble("vote", {"a": "", "b": "", "c": ""}, seats, **options)[0].identity, sort_keys=True)

    known = {
        identity(*members("a", "b")),
        identity(*members("b", "a")),
        identity(*members("a", "c")),
        identity(*members("a", "b", b=2)),
        identity(*members("a", "b"), ties="weight"),
    }
    assert len(known) == 5


def test_several_without_a_way_to_combine_them_are_refused() -> None:
    with pytest.raises(ConfigError, match="several teachers need combine"):
        build(TeacherSpec, {"members": [{"model": "a"}, {"model": "b"}]}, where="teacher")


def test_an_unknown_way_is_named(tmp_path: Path) -> None:
    spec = TeacherSpec(members=(Member(model="gpt-4o"),), combine={"name": "best-off-n"})
    with pytest.raises(UsageError, match="unknown combiner 'best-off-n'"):
        open_teacher(spec, TASK, cache=tmp_path / "c")


def test_two_endpoints_vote_over_http(tmp_path: Path) -> None:
    def member(server: FaultServer, name: str) -> Member:
        return Member(model=name, api=ApiOptions(base_url=server.url, price_input=1, price_output=1))

    with FaultServer(answer=lambda messages: "refund") as one, FaultServer(answer=lambda messages: "delivery") as other:
        spec = TeacherSpec(members=(member(one, "m1"), member(other, "m2"), member(other, "m3")), combine={"name": "vote"})
        teacher = open_teacher(spec, TASK, cache=tmp_path / "requests.sqlite")
        rows = [Row.of(f"question {number}") for number in range(5)]
        requests = [Request(row.id, row.messages, PARAMS, row) for row in rows]
        assert [plan.calls for plan in teacher.plans(requests)] == [5, 5, 5]
        answers = teacher.ask(requests, tmp_path)
    assert {(outcome.reply.text, outcome.teacher) for outcome in answers.outcomes if outcome.reply} == {("delivery", "m2")}
    assert answers.facts["calls"] == one.paid + other.paid == 15
    assert answers.facts["cost"] == pytest.approx(sum(member["cost"] for member in answers.facts["members"]))


def test_a_cap_holds_for_all_members_together(tmp_path: Path) -> None:
    with FaultServer(answer=lambda messages: "refund") as server:
        prices = ApiOptions(base_url=server.url, price_input=1e4, price_output=1e4)  # a cent a token
        spec = TeacherSpec(
            members=(Member(model="m1", api=prices), Member(model="m2", api=prices)),
            combine={"name": "vote"},
            requests=RequestOptions(max_cost=1.2, max_concurrency=1),
        )
        rows = [Row.of(f"question {number}") for number in range(10)]
        requests = [Request(row.id, row.messages, PARAMS, row) for row in rows]
        answers = open_teacher(spec, TASK, cache=tmp_path / "requests.sqlite").ask(requests, tmp_path)
        assert answers.facts["cost"] <= 1.2
        assert "max_cost" in str(answers.stopped)
        settled = [outcome.settled for outcome in answers.outcomes]
        assert any(settled)
        assert not all(settled)
        paid = server.paid
        more = spec.model_copy(update={"requests": RequestOptions(max_cost=100)})
        answers = open_teacher(more, TASK, cache=tmp_path / "requests.sqlite").ask(requests, tmp_path)
        assert all(outcome.settled for outcome in answers.outcomes)
        assert (paid < 20, server.paid) == (True, 20)


def test_judging_is_in_the_plan(tmp_path: Path) -> None:
    judge = {"model": "gpt-4o", "max_new_tokens": 50}
    seats = (Member(model="gpt-4"), Member(model="claude-3.5-sonnet"))
    spec = TeacherSpec(members=seats, combine={"name": "judge", "judge": judge})
    row = Row.of("x" * 400)
    plans = open_teacher(spec, TASK, cache=tmp_path / "c").plans([Request(row.id, row.messages, AskParams(max_new_tokens=40), row)])
    assert [(plan.teacher, plan.calls) for plan in plans] == [("gpt-4", 1), ("claude-3.5-sonnet", 1), ("gpt-4o", 1)]
    assert plans[2].most_completion_tokens == 50
    assert plans[2].prompt_tokens > plans[0].prompt_tokens + 2 * 20  # the question and two answers
    whole = total(plans)
    assert whole is not None
    assert whole.cost == pytest.approx(sum(plan.cost or 0 for plan in plans))
    assert whole.describe().count("\nterms ") == 3


def test_a_mixture_is_between_its_members_and_their_own_where_one_has_all_the_weight(tmp_path: Path) -> None:
    import torch

    from slmops.data.templates import choose_template
    from slmops.models.load import load_tokenizer
    from slmops.signals.forms import TopKForm
    from slmops.signals.tensors import join
    from slmops.teachers.local import LocalTeacher
    from slmops.teachers.mixture import mix
    from slmops.testing.tiny import save_tiny_model

    folders = [save_tiny_model(tmp_path / name, seed=seed, layers=2) for seed, name in enumerate("ab")]
    loaded = [LocalTeacher.load(folder, choose_template(load_tokenizer(folder), "compact"), "float32") for folder in folders]
    row = Row.of("where is my parcel", "delivery")
    encoded = [loaded[0].template.encode(row)]
    vocabulary = 384

    def dense(teacher: LocalTeacher) -> torch.Tensor:
        signal = join(teacher.signals(encoded, TopKForm(vocabulary)))
        return torch.zeros(len(signal.ids), vocabulary).scatter(1, signal.ids, signal.logprobs.exp())

    mixed = mix(loaded, [3, 1], ["a", "b"])
    assert torch.allclose(dense(mixed), 0.75 * dense(loaded[0]) + 0.25 * dense(loaded[1]), atol=1e-3)
    own = loaded[1].answer([row, Row.of("my money")], Sampling(6))
    assert mix(loaded, [1e-9, 1], ["a", "b"]).answer([row, Row.of("my money")], Sampling(6)) == own

    spec = TeacherSpec(members=tuple(Member(model=str(folder)) for folder in folders), combine={"name": "mixture"})
    teacher = open_teacher(spec, TASK, cache=tmp_path / "c", chunk_rows=2)
    assert only(asked(teacher, tmp_path / "work"))[0] is not None

    other = save_tiny_model(tmp_path / "other", vocab_size=380, layers=2)
    strange = LocalTeacher.load(other, choose_template(load_tokenizer(other), "compact"), "float32")
    with pytest.raises(ConfigError, match="different vocabularies"):
        mix([loaded[0], strange], [1, 1], ["a", "other"])
    with pytest.raises(ConfigError, match="gpt-4o gives no distribution"):
        open_teacher(
            TeacherSpec(members=(Member(model=str(other)), Member(model="gpt-4o")), combine={"name": "mixture"}),
            TASK,
            cache=tmp_path / "c",
        )

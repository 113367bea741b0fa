"""What several answerings cost and met is added up once."""

from __future__ import annotations

from slmops.teachers.facts import merged


def facts(name: str, calls: int, **more: object) -> dict[str, object]:
    return {"teacher": {"model": name}, "calls": calls, "cost": calls / 10, **more}


def test_different_teachers_are_added() -> None:
    found = merged(
        [facts("a", 3, faults={"timeout": 1}), facts("b", 4, faults={"timeout": 2}, masked={"EMAIL": 1}), {"teacher": "file"}]
    )
    assert (found["calls"], found["cost"], found["faults"], found["masked"]) == (7, 0.7, {"timeout": 3}, {"EMAIL": 1})
    assert [member["teacher"] for member in found["members"]] == [{"model": "a"}, {"model": "b"}, "file"]


def test_of_one_teacher_the_bill_only_grows_and_faults_are_new_each_time() -> None:
    first, second = (
        facts("a", 3, faults={"timeout": 1}, masked={"EMAIL": 5}),
        facts("a", 5, faults={"html": 1}, masked={"EMAIL": 2}),
    )
    assert merged([first, second]) == facts("a", 5, faults={"timeout": 1, "html": 1}, masked={"EMAIL": 5})


def test_an_ensemble_asked_twice_keeps_what_it_said_first() -> None:
    def ensemble(calls: int, share: float) -> dict[str, object]:
        return {**merged([facts("a", calls), facts("b", calls)]), "disagreements": {"share": share}}

    found = merged([ensemble(2, 0.5), ensemble(3, 1.0)])
    assert (found["calls"], found["disagreements"]) == (6, {"share": 0.5})
    assert len(found["members"]) == 2


def test_nothing_has_no_facts() -> None:
    assert merged([]) == {}

from __future__ import annotations

from dataclasses import replace

from slmops.data.rows import Row


def test_a_rows_id_is_that_of_its_question() -> None:
    row = Row.of("where is it", "delivery", "a.csv:1")
    assert row.id == Row.of([{"role": "user", "content": "where is it"}], None, "b.csv:9").id == row.with_answer("refund").id
    assert row.id != Row.of([{"role": "system", "content": "where is it"}]).id != Row.of("where is it ").id


def test_a_row_survives_being_written_and_read() -> None:
    row = Row.of([{"role": "system", "content": "x"}, {"role": "user", "content": "Ça 😀"}], "a", "a.csv:1")
    assert Row.from_dict(row.as_dict()) == row
    assert row.question == "Ça 😀"


def test_other_right_answers_survive_too_and_go_with_the_answer() -> None:
    row = replace(Row.of("sum up", "one"), others=("two", "three"))
    assert Row.from_dict(row.as_dict()) == row
    assert row.answers == ("one", "two", "three")
    assert row.with_answer("four").answers == ("four", "two", "three")
    assert row.with_answer(None).answers == row.with_answer(None).others == ()
    assert "others" not in Row.of("sum up", "one").as_dict()


def test_the_mark_of_a_row_that_a_teacher_made_survives_too() -> None:
    mark = {"method": "paraphrase", "sources": ["a"], "teacher": "t"}
    row = replace(Row.of("where is it"), made=mark)
    assert Row.from_dict(row.as_dict()) == row
    assert "made" not in Row.of("where is it").as_dict()

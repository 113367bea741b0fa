"""Verdicts read back: who won over rows, how sure that is, and what could not be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from slmops.errors import DataError
from slmops.evaluation.review import Key, KeyRow
from slmops.evaluation.stats import mean_interval, wilson
from slmops.evaluation.verdicts import Verdict, read_verdicts, summary

# Rater-1 sees model a first, rater-2 model b.
RATERS = ("rater-1", "rater-2", "rater-3")


def key(rows: int, *, raters: int = 2, equal: int = 0, compared: int | None = None) -> Key:
    names = list(RATERS[:raters])
    first = {name: "b" if number % 2 else "a" for number, name in enumerate(names)}
    return Key.model_validate(
        {
            "review": "abc",
            "a": "m",
            "b": "n",
            "seed": 0,
            "rubric": "",
            "raters": names,
            "compared": rows + equal if compared is None else compared,
            "equal": equal,
            "rows": {f"r{number}": KeyRow(id=f"id-{number}", first=first) for number in range(rows)},
        }
    )


def verdicts(said: Mapping[str, str]) -> list[Verdict]:
    """By rater, a letter a row: a, b, t (tie), x (both bad), or a dot for none."""
    words = {"a": "a", "b": "b", "t": "tie", "x": "both bad"}
    return [
        Verdict(rater, f"id-{number}", words[letter], None if letter in "tx" else (letter == "a") == (rater != "rater-2"), "", "")
        for rater, letters in said.items()
        for number, letter in enumerate(letters)
        if letter != "."
    ]


Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def file(*lines: str, name: str = "verdicts.csv", header: str = "review,rater,row,verdict,comment") -> Path:
        path = tmp_path / name
        path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
        return path

    return file


def test_the_key_tells_whose_side_was_chosen(write: Write) -> None:
    file = write("abc,rater-1,r0,1,", "abc,rater-2,r0,1,too long", "abc,rater-1,r1,2,", "abc,rater-2,r1,tie,")
    found, rejected = read_verdicts([file], key(2))
    assert rejected == []
    assert [(one.rater, one.row, one.choice, one.first) for one in found] == [
        ("rater-1", "id-0", "a", True),
        ("rater-2", "id-0", "b", True),
        ("rater-1", "id-1", "b", False),
        ("rater-2", "id-1", "tie", None),
    ]
    assert found[1].comment == "too long"


@pytest.mark.parametrize(
    ("word", "choice"),
    [("1", "a"), ("A", "a"), ("left", "a"), ("Answer 2", "b"), (" b ", "b"), ("TIE", "tie"), ("both_bad", "both bad")],
)
def test_words_that_people_write(write: Write, word: str, choice: str) -> None:
    ((found,), _) = read_verdicts([write(f"abc,rater-1,r0,{word},")], key(1))
    assert found.choice == choice


def test_a_filled_in_sheet_saved_with_semicolons_is_read(write: Write) -> None:
    header = "review;rater;row;question;answer_1;answer_2;verdict;comment"
    ((found,), _) = read_verdicts([write('abc;rater-1;r0;"one\nor two";1;2;2;', header=header)], key(1))
    assert found.choice == "b"


def test_lines_that_cannot_be_read_are_set_aside_with_file_and_line(write: Write) -> None:
    file = write(
        "abc,rater-1,r0,1,",
        "abc,rater-1,r1,maybe,",
        "abc,rater-1,r9,1,",
        "xyz,rater-1,r1,1,",
        "abc,rater-9,r1,1,",
        "abc,rater-1,r0,2,",
        "abc,rater-1,r0,1,",
        "abc,rater-1",
        "abc,rater-1,r1,,",
        "abc,rater-2,r1,,only a remark",
    )
    found, rejected = read_verdicts([file], key(2))
    assert [(one.row, one.choice, one.comment) for one in found] == [("id-0", "a", ""), ("id-1", "", "only a remark")]
    assert [(line.origin.rpartition(":")[2], line.reason) for line in rejected] == [
        ("3", "unknown verdict: 'maybe'; known are 1, 2, tie and both bad"),
        ("4", "unknown row: 'r9'"),
        ("5", "another review: 'xyz'"),
        ("6", "unknown rater: 'rater-9'"),
        ("7", f"contradicts {file}:2, which counts"),
        ("8", f"duplicate of {file}:2"),
        ("9", "wrong number of columns: 2 where the header has 5"),
    ]


def test_a_verdict_in_a_later_file_joins_an_earlier_comment(write: Write) -> None:
    files = [write("abc,rater-1,r0,,hm"), write("abc,rater-1,r0,2,hm", name="later.csv")]
    found, rejected = read_verdicts(files, key(1))
    assert ([one.choice for one in found], rejected) == (["b"], [])


def test_files_without_a_verdict_of_this_review_are_refused(write: Write) -> None:
    with pytest.raises(DataError, match=r"no verdict of review abc in .*verdicts.csv\n.*verdicts.csv:2: another review: 'xyz'"):
        read_verdicts([write("xyz,rater-1,r0,1,")], key(1))
    with pytest.raises(DataError, match="missing field 'review'"):
        read_verdicts([write("1,2", header="a,b")], key(1))


def test_the_win_rate_is_of_rows_and_not_of_verdicts() -> None:
    said = verdicts({"rater-1": "aaabbt" * 5, "rater-2": "aabbax" * 5, "rater-3": "a....." * 5})
    found = summary(key(30, raters=3), said, [], 0.95)
    # Row by row: 1, 1, ½, 0, ½, ½.
    scores = [1, 1, 0.5, 0, 0.5, 0.5] * 5
    assert found["win_rate"] == pytest.approx(3.5 / 6)
    assert found["interval"] == pytest.approx(mean_interval(scores, 0.95))
    assert found["rows"] == {"compared": 30, "equal": 0, "shown": 30, "judged": 30}
    assert found["verdicts"] == {"a": 35, "b": 20, "tie": 5, "both bad": 5}
    assert found["both_bad_share"] == pytest.approx(5 / 65)


def test_rows_with_equal_answers_are_ties() -> None:
    found = summary(key(20, equal=60), verdicts({"rater-1": "a" * 15 + "b" * 5}), [], 0.95)
    low, high = wilson(15, 20, 0.95)
    assert found["where_different"] == {"win_rate": 0.75, "interval": [low, high]}
    assert found["win_rate"] == pytest.approx((15 + 30) / 80)
    assert found["interval"] == pytest.approx([0.5 + (low - 0.5) / 4, 0.5 + (high - 0.5) / 4])


@pytest.mark.parametrize(
    ("said", "word"),
    [("a" * 18 + "b" * 2, "A better"), ("b" * 18 + "a" * 2, "B better"), ("ab" * 10, "INCONCLUSIVE"), ("t" * 20, "INCONCLUSIVE")],
)
def test_the_word_goes_by_the_interval(said: str, word: str) -> None:
    assert summary(key(20), verdicts({"rater-1": said}), [], 0.95)["word"] == word


def test_three_rows_on_which_raters_say_the_same_prove_nothing() -> None:
    found = summary(key(3), verdicts({"rater-1": "aaa", "rater-2": "ttt"}), [], 0.95)
    assert found["win_rate"] == 0.75
    assert found["word"] == "INCONCLUSIVE"


def test_raters_by_themselves_and_what_they_left_out() -> None:
    found = summary(key(4, raters=3), verdicts({"rater-1": "aabx", "rater-2": "a..b"}), [], 0.95)
    one, two, three = found["raters"]
    assert (one["win_rate"], one["missing"]) == (0.625, [])
    assert one["verdicts"] == {"a": 2, "b": 1, "tie": 0, "both bad": 1}
    assert (two["win_rate"], two["interval"], two["missing"]) == (0.5, list(wilson(1, 2, 0.95)), ["id-1", "id-2"])
    assert (three["win_rate"], three["missing"]) == (None, ["id-0", "id-1", "id-2", "id-3"])


def test_agreement_is_about_models_and_not_about_sides() -> None:
    found = summary(key(4), verdicts({"rater-1": "abt.", "rater-2": "abba"}), [], 0.95)["agreement"]
    assert found["rows"] == 3
    assert found["percent"] == pytest.approx(2 / 3)
    assert found["kappa"] == pytest.approx((2 / 3 - 3 / 9) / (1 - 3 / 9))
    three = summary(key(3, raters=3), verdicts({"rater-1": "abt", "rater-2": "abt", "rater-3": "abt"}), [], 0.95)
    assert (three["agreement"]["alpha"], three["agreement"]["kappa"]) == (1, None)


def test_raters_who_like_the_first_answer_are_found_out() -> None:
    # The sides are swapped, so who always takes the first answer contradicts the other.
    found = summary(key(20), verdicts({"rater-1": "a" * 20, "rater-2": "b" * 20}), [], 0.95)
    assert found["word"] == "INCONCLUSIVE"
    assert (found["position"]["first"], found["position"]["biased"], found["position"]["verdicts"]) == (1, True, 40)
    fair = summary(key(20), verdicts({"rater-1": "ab" * 10, "rater-2": "ab" * 10}), [], 0.95)["position"]
    assert (fair["first"], fair["biased"]) == (0.5, False)
    none = summary(key(2), verdicts({"rater-1": "tx"}), [], 0.95)["position"]
    assert (none["first"], none["interval"], none["biased"]) == (None, None, False)

from __future__ import annotations

import pytest

from slmops import errors


def test_an_error_says_where_what_and_what_to_do() -> None:
    error = errors.DataError("no answer", where="rows.csv:3", fix="label it")
    assert str(error) == "rows.csv:3: no answer\n  → label it"
    assert (error.where, error.what, error.fix) == ("rows.csv:3", "no answer", "label it")
    assert str(errors.DataError("no answer")) == "no answer"


def test_a_missing_package_names_its_extra() -> None:
    assert (
        str(errors.MissingExtraError("torch", "train")) == "the package 'torch' is not installed\n  → pip install 'slmops[train]'"
    )


@pytest.mark.parametrize(("error", "code"), [(errors.UsageError, 2), (errors.GateError, 1), (errors.InconclusiveError, 3)])
def test_exit_codes(error: type[errors.SlmopsError], code: int) -> None:
    assert error.exit_code == code


def test_the_nearest_name_or_all_names() -> None:
    assert errors.nearest("forward_lk", ["cross_entropy", "forward_kl"]) == "did you mean 'forward_kl'?"
    assert errors.nearest("xyz", ["b", "a"]) == "known: a, b"


def test_the_place_of_a_problem() -> None:
    assert errors.at("a.csv") == "a.csv"
    assert errors.at("a.csv", 3) == "a.csv:3"
    assert errors.at("a.csv", 3, "text") == "a.csv:3, field 'text'"

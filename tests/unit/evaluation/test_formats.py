"""How figures are written."""

from __future__ import annotations

from slmops.evaluation.formats import chance, figure, headline_value, number
from slmops.evaluation.parts import Headline, Measure


def test_the_rate_of_a_missed_target_is_not_rounded_up_to_it() -> None:
    item = Headline(what="requests per second", value=5.996, target=6.0, unit="times", reached=False)
    assert (headline_value(item, item.value), headline_value(item, item.target)) == ("6.00 ×", "6.00 ×")
    item = Headline(what="latency", value=84.96, target=85.0, unit="percent less", reached=False)
    assert (headline_value(item, item.value), headline_value(item, item.target)) == ("84.96 % less", "85.00 % less")
    item = Headline(what="latency", value=-12.0, target=85.0, unit="percent less", reached=False)
    assert headline_value(item, item.value) == "12 % more"


def test_figures_have_few_digits() -> None:
    assert [number(value) for value in (None, 0, 0.00481, 0.31, 4.1, 36.54, 99.96, 1340.2)] == [
        "–", "0", "0.00481", "0.31", "4.10", "36.5", "100", "1,340",
    ]  # fmt: skip
    score = Measure(title="Accuracy", unit="", better="higher", help="")
    assert figure("accuracy", 0.8, score) == "0.800"
    assert figure("parameters", 56_600_000, score) == "56.6 M"
    assert figure("share_of_teacher", 1.0725, score) == "107.2 %"


def test_a_small_chance_is_not_called_none() -> None:
    assert [chance(value) for value in (None, 0.0, 0.00099, 0.041, 1)] == ["–", "< 0.001", "< 0.001", "0.041", "1.000"]

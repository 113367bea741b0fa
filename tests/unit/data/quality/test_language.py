"""The language of an answer is compared with that of the question, where both can be told."""

from __future__ import annotations

import sys

import pytest

from slmops.data.quality.language import Languages, _model
from slmops.errors import MissingExtraError

pytest.importorskip("py3langid", reason="languages need the extra quality")

ENGLISH = "Where can I see how long my parcel will still take until it arrives at my house?"
GERMAN = "Sie finden den Stand der Lieferung jederzeit in Ihrem Konto unter dem Punkt Bestellungen."
FRENCH = "Vous pouvez suivre votre colis à tout moment sur notre site, dans la rubrique des commandes."


@pytest.fixture(scope="module")
def languages() -> Languages:
    return Languages()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (ENGLISH, "en"),
        (GERMAN, "de"),
        (FRENCH, "fr"),
        ("Puede seguir su pedido en cualquier momento en nuestra página, en el apartado de compras.", "es"),
        ("您可以随时在我们网站的订单页面查看包裹的配送状态，如果还有问题请联系客服人员，我们会尽快为您处理并回复您的邮件。", "zh"),
        ("ok", None),
        ("joy", None),
        ("4,500.00 + 1 = 4501; x = 12; https://example.org/a/long/path/that/says/nothing", None),
    ],
)
def test_a_language_is_told_where_the_text_is_long_enough(languages: Languages, text: str, code: str | None) -> None:
    assert languages.of(text) == code


def test_an_answer_in_another_language_is_wrong(languages: Languages) -> None:
    assert languages.mismatch(ENGLISH, GERMAN) == "language: the answer is in 'de', expected is 'en'"
    assert languages.mismatch(ENGLISH, ENGLISH) is None
    assert languages.mismatch(GERMAN, FRENCH) is not None


def test_a_question_that_names_a_language_may_be_answered_in_it(languages: Languages) -> None:
    assert languages.mismatch(f"Translate this, please: {ENGLISH}", GERMAN) is None
    assert languages.mismatch(f"{ENGLISH} Answer in German.", GERMAN) is None


def test_the_language_can_be_named_or_left_open() -> None:
    german, any_language = Languages("de"), Languages("any")
    assert german.mismatch(ENGLISH, GERMAN) is None
    assert german.mismatch(GERMAN, ENGLISH) == "language: the answer is in 'en', expected is 'de'"
    assert any_language.mismatch(ENGLISH, GERMAN) is None


def test_without_the_package_languages_are_left_open_or_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    _model.cache_clear()
    assert Languages("any").of(ENGLISH) is None
    with pytest.raises(MissingExtraError, match=r"slmops\[quality\].*any"):
        Languages().of(ENGLISH)


def test_short_answers_are_not_judged(languages: Languages) -> None:
    assert languages.mismatch(ENGLISH, "Rendez-vous demain") is None

"""The language of an answer is compared with that of the question, where both can be told."""

from __future__ import annotations

import pytest

from slmops.data.quality.language import Languages

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
    assert languages.mismatch(ENGLISH, GERMAN, "prompt") == "language: the answer is in 'de', expected is 'en'"
    assert languages.mismatch(ENGLISH, ENGLISH, "prompt") is None
    assert languages.mismatch(GERMAN, FRENCH, "prompt") is not None


def test_a_question_that_names_a_language_may_be_answered_in_it(languages: Languages) -> None:
    assert languages.mismatch(f"Translate this, please: {ENGLISH}", GERMAN, "prompt") is None
    assert languages.mismatch(f"{ENGLISH} Answer in German.", GERMAN, "prompt") is None


def test_the_language_can_be_named_or_left_open(languages: Languages) -> None:
    assert languages.mismatch(ENGLISH, GERMAN, "de") is None
    assert languages.mismatch(GERMAN, ENGLISH, "de") == "language: the answer is in 'en', expected is 'de'"
    assert languages.mismatch(ENGLISH, GERMAN, "any") is None


def test_short_answers_are_not_judged(languages: Languages) -> None:
    assert languages.mismatch(ENGLISH, "Rendez-vous demain", "prompt") is None

"""Labels in answers: the forms a label may take, the one a text names, and how well they were chosen."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from slmops.tasks.base import AnswerError

_LETTER = re.compile(r"^[\s\W]*([A-Za-z]|\d{1,2})\s*(?:[).:\]*'\"]|$)")
_BRACKETED = re.compile(r"\(([A-Za-z]|\d{1,2})\)")
_NOT = r"\b(?:not|no|never|neither|nor|\w+n't|\w+n’t)\s+(?:\w+\s+){0,2}"


def form(text: str) -> str:
    """A label without the differences that do not count: case, white space, a closing full stop."""
    return " ".join(text.split()).rstrip(". ").casefold()


def by_form(labels: Sequence[str]) -> dict[str, str]:
    """Form to label.

    Raises:
        ValueError: Two labels have one form.
    """
    found: dict[str, str] = {}
    for label in labels:
        if form(label) in found:
            raise ValueError(f"{found[form(label)]!r} and {label!r} are one label")
        found[form(label)] = label
    return found


def labels_of(answers: Sequence[str]) -> list[str]:
    """The distinct answers by their forms, sorted."""
    found: dict[str, str] = {}
    for answer in answers:
        found.setdefault(form(answer), " ".join(answer.split()))
    return sorted(found.values())


def short(text: str) -> str:
    """A text for a reason, cut at 60 characters."""
    return text if len(text) <= 60 else text[:57] + "..."


def named_label(text: str, known: Mapping[str, str]) -> str:
    """The label that a text is, or the only one that it names without a negation.

    Args:
        text: The answer.
        known: Form to label.

    Raises:
        AnswerError: The text names none, or several.
    """
    label = known.get(form(text)) or known.get(form(text.strip().strip("*_`'\"()[]{}.:“”’‘ \t\n")))
    if label is not None:
        return label
    plain = form(text)
    named = [name for name in known if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", plain)]
    denied = [name for name in named if re.search(rf"{_NOT}{re.escape(name)}(?!\w)", plain)]
    if len(named) == 1 and not denied:
        return known[named[0]]
    raise AnswerError(f"{'several labels' if len(named) > 1 else 'not a label'}: {short(text.strip())!r}")


def named_letter(text: str, known: Mapping[str, str]) -> str:
    """The letter of a choice that a text begins with (``B``, ``(B)``, ``B. Rome``), or the only one in brackets.

    Args:
        text: The answer.
        known: Form to letter.

    Raises:
        AnswerError: The text names none, or several.
    """
    first = _LETTER.match(text.strip())
    if first and form(first.group(1)) in known:
        return known[form(first.group(1))]
    named = {form(letter) for letter in _BRACKETED.findall(text)} & set(known)
    if len(named) == 1:
        return known[named.pop()]
    raise AnswerError(f"{'several choices' if named else 'not a choice'}: {short(text.strip())!r}")


def label_scores(predicted: Sequence[str | None], expected: Sequence[str]) -> dict[str, float]:
    """Accuracy, macro F1 over the labels that occur in the references, and the share of answers that are labels."""
    total = max(len(expected), 1)
    return {
        "accuracy": sum(p is not None and p == e for p, e in zip(predicted, expected, strict=True)) / total,
        "macro_f1": macro_f1(predicted, expected),
        "valid_share": sum(p is not None for p in predicted) / total,
    }


def macro_f1(predicted: Sequence[str | None], expected: Sequence[str]) -> float:
    """F1 of each expected label, averaged."""
    scores = []
    for label in sorted(set(expected)):
        hits = sum(p == label == e for p, e in zip(predicted, expected, strict=True))
        claimed, actual = predicted.count(label), expected.count(label)
        scores.append(2 * hits / (claimed + actual))
    return sum(scores) / len(scores) if scores else 0.0

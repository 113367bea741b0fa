"""The facts of a quality pass, as ``data-report.json`` holds them; examples are shown without personal data."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from slmops.data.prepare import SPLITS, Prepared
from slmops.data.privacy import mask_text
from slmops.data.quality.balance import alike_labels, distinct, evenness, rare_labels
from slmops.data.quality.examine import Findings
from slmops.data.rows import Row
from slmops.data.sources import Rejected

_EXAMPLES = 5
_SHOWN = 400
_QUANTILES = 41
_MOST_LABELS_NAMED = 8
_LEAST_AT_ONE_LENGTH = 10
_NO_FAULT = ("duplicate", "near duplicate", "leak", "balanced")
"""Kinds of reasons that say nothing against a row but that another one is there."""


@dataclass(frozen=True)
class Example:
    """A row that was set aside: where it was, why, and its text, shortened and without personal data."""

    origin: str
    reason: str
    question: str
    answer: str


@dataclass(frozen=True)
class Aside:
    """The rows set aside for one kind of reason."""

    kind: str
    rows: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class DataReport:
    """What a quality pass found.

    Args:
        name: Of the data.
        read: Rows read, usable or not.
        success: Share of them that have no fault of their own; duplicates, leaks and rows left out for balance have none.
        rows: Good rows by split.
        aside: Rows set aside by kind of reason, most first.
        leaks: Rows set aside because a held-out split has them: held-out split, split they were in, rows.
        alike: Pairs of near duplicates that stay, because their answers or numbers differ.
        labels: Good rows by label and split; ``None`` for free answers.
        evenness: Entropy of the training labels as a share of the largest; ``None`` for free answers.
        diversity: Distinct-1, -2 and -3 of ``questions`` and of free ``answers``.
        lengths: 41 quantiles (0 to 1) of the characters of questions and answers, by split: ``{"question": {"train": [...]}}``.
        agreement: Of several answers to one question: ``questions``, ``unanimous``, ``pairwise``, ``alpha``, ``confused``.
        languages: Questions by language; ``?`` where they are too short to tell.
        personal: Rows with personal data, by kind.
        notes: What a person should look at.
    """

    name: str
    read: int
    success: float
    rows: Mapping[str, int]
    aside: tuple[Aside, ...]
    leaks: tuple[tuple[str, str, int], ...]
    alike: int
    labels: Mapping[str, Mapping[str, int]] | None
    evenness: float | None
    diversity: Mapping[str, Sequence[float | None]]
    lengths: Mapping[str, Mapping[str, Sequence[float]]]
    agreement: Mapping[str, Any]
    languages: Mapping[str, int]
    personal: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def good(self) -> int:
        """Good rows in all splits."""
        return sum(self.rows.values())

    def count(self, kind: str) -> int:
        """Rows set aside for a kind of reason."""
        return sum(item.rows for item in self.aside if item.kind == kind)

    def summary(self) -> dict[str, Any]:
        """A few figures for the report of a run."""
        return {
            "read": self.read,
            "good": self.good,
            "success": self.success,
            "duplicates": sum(self.count(kind) for kind in ("duplicate", "near duplicate")),
            "leaks": sum(rows for _, _, rows in self.leaks),
            "notes": list(self.notes),
        }

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def describe(name: str, prepared: Prepared, findings: Findings) -> DataReport:
    """The report of a pass.

    Args:
        name: Of the data.
        prepared: Good rows and those set aside.
        findings: What the pass saw besides.
    """
    facts = prepared.facts()
    rows = {split: prepared.split(split) for split in SPLITS}
    good = [row for split in SPLITS for row in rows[split]]
    free = prepared.labels is None
    counts = Counter(str(row.answer) for row in prepared.train)
    found = findings.agreement
    read = len(good) + len(prepared.rejected)
    faulty = sum(bad.kind not in _NO_FAULT for bad in prepared.rejected)
    return DataReport(
        name=name,
        read=read,
        success=1 - faulty / read if read else 1.0,
        rows={split: len(rows[split]) for split in SPLITS},
        aside=_aside(prepared.rejected),
        leaks=tuple((held_out, split, count) for (held_out, split), count in findings.leaks.most_common()),
        alike=findings.alike,
        labels=facts["labels"],
        evenness=None if free else evenness(counts.values()),
        diversity={
            "questions": [distinct([row.question for row in good], n) for n in (1, 2, 3)],
            **({"answers": [distinct([row.answer or "" for row in good], n) for n in (1, 2, 3)]} if free else {}),
        },
        lengths=_lengths(rows, free=free),
        agreement=asdict(found) if found is not None else {},
        languages=dict(findings.languages.most_common()),
        personal=dict(findings.personal.most_common()),
        notes=tuple(_notes(prepared, findings, counts)),
    )


def _aside(rejected: Iterable[Rejected]) -> tuple[Aside, ...]:
    by_kind: dict[str, list[Rejected]] = {}
    for bad in rejected:
        by_kind.setdefault(bad.kind, []).append(bad)
    ranked = sorted(by_kind.items(), key=lambda item: (-len(item[1]), item[0]))
    return tuple(Aside(kind, len(rows), tuple(_example(bad) for bad in rows[:_EXAMPLES])) for kind, rows in ranked)


def _example(bad: Rejected) -> Example:
    question, answer = bad.raw, ""
    with suppress(ValueError, KeyError, TypeError, IndexError):  # a row that could not be read stands as it was
        values = json.loads(bad.raw)
        question, answer = values["messages"][-1]["content"], values["answer"] or ""
    return Example(bad.origin, _shown(bad.reason), _shown(str(question)), _shown(str(answer)))


def _shown(text: str) -> str:
    text = mask_text(text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _lengths(rows: Mapping[str, Sequence[Row]], *, free: bool) -> dict[str, dict[str, list[float]]]:
    texts = {"question": {split: [len(row.question) for row in found] for split, found in rows.items()}}
    if free:
        texts["answer"] = {split: [len(row.answer) for row in found if row.answer] for split, found in rows.items()}
    points = np.linspace(0, 1, _QUANTILES)
    return {
        field: {split: [round(float(value), 1) for value in np.quantile(sizes, points)] for split, sizes in splits.items() if sizes}
        for field, splits in texts.items()
    }


def _notes(prepared: Prepared, findings: Findings, counts: Counter[str]) -> Iterable[str]:
    for names in alike_labels(prepared.labels or ()):
        yield f"The labels {', '.join(map(repr, names))} are probably one."
    if prepared.labels is not None and (rare := rare_labels(counts)):
        more = f" and {len(rare) - _MOST_LABELS_NAMED} more" if len(rare) > _MOST_LABELS_NAMED else ""
        yield f"Fewer than five training rows: {', '.join(rare[:_MOST_LABELS_NAMED])}{more}."
    if findings.alike:
        yield (
            f"{findings.alike:,} pairs of questions are nearly the same but have other answers or other numbers. They stay, "
            "in one split where splits are drawn and not most rows are of one pattern; look whether the labels are right."
        )
    if findings.agreement is not None and findings.agreement.questions > findings.agreement.unanimous:
        apart = findings.agreement.questions - findings.agreement.unanimous
        yield f"{apart:,} of {findings.agreement.questions:,} questions that stand several times have different answers."
    for field, texts in _fields(prepared).items():
        longest = max(map(len, texts), default=0)
        at_it = sum(len(text) == longest for text in texts)
        if at_it >= _LEAST_AT_ONE_LENGTH and at_it >= 0.01 * len(texts) and longest > 100:
            yield f"{at_it:,} {field} have exactly {longest:,} characters, and none has more: they were probably cut off before."
    if findings.personal:
        kinds = ", ".join(f"{kind} in {rows:,}" for kind, rows in findings.personal.most_common())
        yield f"Rows with personal data or secrets: {kinds}. A teacher behind an API is given placeholders in their place."


def _fields(prepared: Prepared) -> dict[str, list[str]]:
    good = [row for split in SPLITS for row in prepared.split(split)]
    fields = {"questions": [row.question for row in good]}
    if prepared.labels is None:
        fields["answers"] = [row.answer for row in good if row.answer]
    return fields

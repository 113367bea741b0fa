"""From what a source gives to the splits that the other stages read: checked, without duplicates, and all there."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slmops.data.columns import look_like_labels
from slmops.data.rows import Row
from slmops.data.sources import RawSplits, Rejected, Source
from slmops.data.splits import take_share
from slmops.errors import DataError
from slmops.files import read_json, read_jsonl, write_json, write_jsonl

CheckAnswer = Callable[[Row], str | None]
"""A task's check of a row: why its question or its answer, where it has one, cannot be used; or ``None``."""


@dataclass(frozen=True)
class Examined:
    """Rows that were looked at.

    Args:
        splits: The rows to go on with, by split, without a question that stands twice.
        rejected: The rows set aside.
        together: Group by row id: rows of one group are alike and must not stand in different splits.
    """

    splits: dict[str, list[Row]]
    rejected: list[Rejected]
    together: Mapping[str, str] = field(default_factory=dict)


Examine = Callable[[Mapping[str, Sequence[Row]]], Examined]
"""Looks at test, validation, train and pool, in this order: a row that stands in several stays in the first."""

SPLITS = ("train", "pool", "validation", "test")
REJECTED = "rejected.jsonl"
_FACTS = "data.json"
_PUNCTUATION = re.compile(r"[\s.,;!?…¡¿'\"`´‘’“”«»]+")


@dataclass(frozen=True)
class Prepared:
    """The rows that the other stages work with; no question stands in two splits.

    Args:
        train: Rows with an answer.
        pool: Rows without one, for a teacher to answer.
        validation: Rows with an answer, to choose by. Where no training row is labelled they may lack it.
        test: The same, to measure with.
        rejected: All rows set aside.
        labels: The answers to choose from; ``None`` for free text, which labels behind a reasoning are too.
    """

    train: list[Row]
    pool: list[Row]
    validation: list[Row]
    test: list[Row]
    rejected: list[Rejected]
    labels: tuple[str, ...] | None

    def split(self, name: str) -> list[Row]:
        """The rows of one of ``SPLITS``."""
        rows: list[Row] = getattr(self, name)
        return rows

    def facts(self) -> dict[str, Any]:
        """Rows per split, rejected rows per kind of reason, and rows per label and split."""
        facts: dict[str, Any] = {
            "rows": {**{name: len(self.split(name)) for name in SPLITS}, "rejected": len(self.rejected)},
            "rejected": dict(_kinds(self.rejected)),
            "labels": None,
        }
        if self.labels is not None:
            counts = {name: Counter(row.answer for row in self.split(name)) for name in ("train", "validation", "test")}
            facts["labels"] = {label: {name: count[label] for name, count in counts.items()} for label in self.labels}
        return facts


def prepare(
    source: Source | RawSplits,
    *,
    labels: Sequence[str] | None,
    check_answer: CheckAnswer,
    normal_form: Callable[[Row], Row] = lambda row: row,
    label_of: Callable[[Row], str] = lambda row: row.answer or "",
    seed: int,
    max_bad_share: float,
    validation_share: float,
    test_share: float,
    examine: Examine | None = None,
) -> Prepared:
    """Read a source, check its rows, drop duplicates and make the splits that are missing.

    A question that stands in several splits stays in test, else validation, else train, else the pool; inside a split its
    first row stays. Rows dropped so are in ``rejected`` but do not count as bad. Missing splits are drawn from the labelled
    rows, stratified by label, by a hash of the seed and the question: the order of the rows has no influence. Where no
    training row is labelled, they are drawn from the pool. Rows that a
    teacher made stay in train and pool, and none of them comes from a validation or test row.

    Args:
        source: Where the rows come from, or what was read there.
        labels: The labels of the task; ``None`` finds out whether the answers are labels.
        check_answer: The task's check of rows.
        normal_form: Makes of a row that passed it one whose answer is in the task's normal form.
        label_of: The label of a row, which may stand behind its reasoning.
        seed: For the splits.
        max_bad_share: Most bad rows, as a share of all.
        validation_share: Share of the labelled rows for validation where the source has none; 0 for no such split.
        test_share: The same for test.
        examine: A closer look at the rows, which must find the duplicates too; left out: equal questions alone.

    Raises:
        DataError: Too many bad rows; no row left to train on, or for a split.
    """
    raw = source if isinstance(source, RawSplits) else source.read()
    splits = {"test": raw.test, "validation": raw.validation, "train": raw.labelled, "pool": raw.pool}
    given = {name for name, rows in splits.items() if rows}
    rejected = list(raw.rejected)
    total = len(rejected) + sum(len(rows) for rows in splits.values())
    for name in ("test", "validation"):
        splits[name] = _checked(splits[name], _unreal, rejected)
    for name, rows in splits.items():
        splits[name] = [normal_form(row) for row in _checked(rows, check_answer, rejected)]
    _stop_if_too_many(rejected, total, max_bad_share)
    examined = (examine or _without_duplicates)(splits)
    splits = {**examined.splits}
    rejected += examined.rejected
    emptied = sorted(name for name in given & {"test", "validation"} if not splits[name])
    if emptied or not (splits["train"] or splits["pool"]):
        lost = emptied[0] if emptied else "training"
        raise DataError(f"no {lost} row is left\n  {_summary(rejected)}", fix=f"give more rows; {REJECTED} has those set aside")
    answers = [row.answer for name in ("train", "validation", "test") for row in splits[name] if row.answer is not None]
    known = tuple(labels) if labels is not None else tuple(sorted(set(answers))) if look_like_labels(answers) else None
    stratum = label_of if known is not None else lambda row: ""
    alike, drawn_from = examined.together, "train" if splits["train"] else "pool"
    real = sum(row.made is None for row in splits[drawn_from])
    for name, share in (("test", test_share), ("validation", validation_share)):
        if name not in given and share > 0:
            by = stratum if drawn_from == "train" else lambda row: ""
            splits[name], splits[drawn_from] = _draw(splits[drawn_from], round(real * share), name, by, seed, alike)
    left_out = _drawn_from([*splits["validation"], *splits["test"]], alike)
    train, pool = (_checked(splits[name], left_out, rejected) for name in ("train", "pool"))
    counted = known is None or set(answers) <= set(known)
    return Prepared(train, pool, splits["validation"], splits["test"], rejected, known if counted else None)


def write(prepared: Prepared, folder: Path) -> None:
    """Write one JSON-lines file a split, ``rejected.jsonl``, and ``data.json`` with the facts, which comes last."""
    for name in SPLITS:
        write_jsonl(folder / f"{name}.jsonl", (row.as_dict() for row in prepared.split(name)))
    write_jsonl(folder / REJECTED, (bad.as_dict() for bad in prepared.rejected))
    write_json(folder / _FACTS, prepared.facts())


def load(folder: Path) -> Prepared:
    """Read what :func:`write` wrote.

    Raises:
        DataError: The folder does not hold prepared data, or not all of it.
    """
    try:
        rows = {name: [Row.from_dict(row) for row in read_jsonl(folder / f"{name}.jsonl")] for name in SPLITS}
        rejected = [Rejected(**bad) for bad in read_jsonl(folder / REJECTED)]
        labels = read_json(folder / _FACTS)["labels"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"this is no folder of prepared data, or it is damaged: {error}", where=str(folder), fix="run the data stage again"
        ) from error
    return Prepared(**rows, rejected=rejected, labels=tuple(labels) if labels is not None else None)


def question_key(row: Row) -> str:
    """What is asked, without the differences that do not count: case, white space, punctuation of sentences.

    Signs that carry meaning (``+``, ``-``, ``%``, ``:)``) stay, and a decimal point still parts the digits.
    """
    return "\x1e".join(f"{turn['role']}\x1f{normal(turn['content'])}" for turn in row.messages)


def normal(text: str) -> str:
    """A text without the differences that :func:`question_key` leaves out."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return _PUNCTUATION.sub(" ", folded).strip() or folded


def _checked(rows: Iterable[Row], check_answer: CheckAnswer, rejected: list[Rejected]) -> list[Row]:
    kept = []
    for row in rows:
        reason = check_answer(row)
        if reason is None:
            kept.append(row)
        else:
            rejected.append(reject(row, reason))
    return kept


def _unreal(row: Row) -> str | None:
    return f"made by a teacher: {row.made['method']}; such rows are for training alone" if row.made else None


def _drawn_from(held_out: Sequence[Row], alike: Mapping[str, str]) -> CheckAnswer:
    """Why a row that a teacher made cannot be trained on beside these rows: it was made from one, or is like one."""
    origins = {row.id: row.origin for row in held_out}
    groups = {alike[row.id]: row.origin for row in held_out if row.id in alike}

    def problem(row: Row) -> str | None:
        if row.made is None:
            return None
        source = next((name for name in row.made["sources"] if name in origins), None)
        found = origins[source] if source is not None else groups.get(alike.get(row.id, ""))
        return f"leak: made from {found}, which is held out" if found is not None else None

    return problem


def _without_duplicates(splits: Mapping[str, Sequence[Row]]) -> Examined:
    """The splits in the order of their rank, each question in the first place it stands."""
    rejected: list[Rejected] = []
    seen: dict[str, Row] = {}
    kept: dict[str, list[Row]] = {}
    for name, rows in splits.items():
        kept[name] = []
        for row in rows:
            first = seen.setdefault(question_key(row), row)
            if first is row:
                kept[name].append(row)
            elif row.answer is None or first.answer is None or row.answer == first.answer:
                rejected.append(reject(row, f"duplicate of {first.origin}"))
            else:
                rejected.append(reject(row, f"conflicting answer: {row.answer!r}, but {first.origin} has {first.answer!r}"))
    return Examined(kept, rejected)


def _stop_if_too_many(rejected: Sequence[Rejected], total: int, max_bad_share: float) -> None:
    if not total:
        raise DataError("there are no rows", fix="give a file with one example a line")
    share = len(rejected) / total
    if share <= max_bad_share:
        return
    places = "\n".join(f"    {bad.origin}: {bad.reason}" for bad in rejected[:5])
    raise DataError(
        f"{len(rejected):,} of {total:,} rows are bad ({share:.1%}), more than the {max_bad_share:.1%} allowed\n"
        f"  {_summary(rejected)}\n  the first are\n{places}",
        where="data",
        fix=f"mend them, or go on without them with --max_bad_share {_rounded_up(share)}; they are then listed in {REJECTED}",
    )


def _rounded_up(share: float) -> str:
    return f"{min(1.0, int(share * 100 + 1) / 100):.2f}"


def _summary(rejected: Iterable[Rejected]) -> str:
    kinds = _kinds(rejected)
    shown = ", ".join(f"{count:,} × {kind}" for kind, count in kinds[:8])
    return shown + (f", and {len(kinds) - 8} other reasons" if len(kinds) > 8 else "")


def _kinds(rejected: Iterable[Rejected]) -> list[tuple[str, int]]:
    return Counter(bad.kind for bad in rejected).most_common()


def _draw(
    rows: list[Row], count: int, name: str, stratum: Callable[[Row], str], seed: int, alike: Mapping[str, str]
) -> tuple[list[Row], list[Row]]:
    real = [row for row in rows if row.made is None]

    def take(together: Callable[[Row], str] | None) -> tuple[list[Row], list[Row]]:
        return take_share(real, count=max(1, count), key=question_key, group=stratum, together=together, seed=seed)

    taken, _ = take(lambda row: alike.get(row.id, row.id))
    if 2 * len(taken) < count:  # most rows are of one pattern: there is no split that keeps them together
        taken, _ = take(None)
    if not taken:
        what = "rows" if all(row.answer is None for row in rows) else "labelled rows"
        raise DataError(
            f"too few {what} ({len(rows)}) to set some aside for {name}",
            fix=f"give a file with {name} rows (--{name}_data), or more {what}",
        )
    held_out = {row.id for row in taken}
    return taken, [row for row in rows if row.id not in held_out]


def reject(row: Row, reason: str) -> Rejected:
    """Set a row aside; the text of the reason before its first colon is its kind."""
    raw = {"messages": [dict(turn) for turn in row.messages], "answer": row.answer}
    return Rejected(row.origin, reason, json.dumps(raw, ensure_ascii=False))

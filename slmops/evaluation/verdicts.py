"""People's verdicts read back: who won, how sure that is, how far raters agree, and what could not be read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.data.readers import read_table
from slmops.data.records import Record
from slmops.data.rowfiles import Rejected
from slmops.data.shapes import BadRow
from slmops.errors import DataError, at
from slmops.evaluation.agreement import cohen_kappa, krippendorff_alpha, percent_agreement
from slmops.evaluation.review import Key
from slmops.evaluation.stats import Difference, Interval, mean_interval, wilson
from slmops.files import canonical

CHOICES = ("a", "b", "tie", "both bad")
"""What a verdict says of the models, once the key has told which side was whose."""

_SCORES = {"a": 1.0, "b": 0.0, "tie": 0.5, "both bad": 0.5}
_WORDS = {
    **dict.fromkeys(("1", "1.0", "a", "answer 1", "first", "left"), 1),
    **dict.fromkeys(("2", "2.0", "b", "answer 2", "second", "right"), 2),
    **dict.fromkeys(("tie", "t", "equal", "same"), "tie"),
    **dict.fromkeys(("both bad", "bad", "neither", "x"), "both bad"),
}
_NEEDED = ("review", "rater", "row", "verdict")
_FEW_ROWS = 10


@dataclass(frozen=True)
class Verdict:
    """What a rater says of a row.

    Args:
        rater: Who.
        row: The row's id in the data.
        choice: One of :data:`CHOICES`; empty where only a comment was given.
        first: Whether the answer that stood first was chosen; ``None`` for a tie and where both are bad.
        comment: In the rater's words.
        origin: File and line.
    """

    rater: str
    row: str
    choice: str
    first: bool | None
    comment: str
    origin: str


def read_verdicts(files: Sequence[Path], key: Key) -> tuple[list[Verdict], list[Rejected]]:
    """Read what raters sent back, and set aside what cannot be read.

    Files are those that the page saves, or filled-in sheets: CSV with ``review``, ``rater``, ``row``, ``verdict`` and
    perhaps ``comment``. A verdict is ``1``, ``2``, ``tie`` or ``both bad`` (``A``, ``B``, ``left``, ``right`` will do). Of
    several lines about the same row by the same rater the first counts.

    Raises:
        DataError: A file cannot be read as a table, or nothing in all of them is a verdict of this review.
    """
    read: dict[tuple[str, str], Verdict] = {}
    rejected: list[Rejected] = []
    for file in files:
        for record in read_table(file).records:
            origin = at(file, record.line)
            try:
                verdict = _read(record, key, origin)
                if verdict is None:
                    continue
                before = read.get((verdict.rater, verdict.row))
                if before is not None and before.choice:
                    same = before.choice == verdict.choice
                    raise BadRow(f"duplicate of {before.origin}" if same else f"contradicts {before.origin}, which counts")
                read[verdict.rater, verdict.row] = verdict
            except BadRow as error:
                raw = record.raw if record.values is None else canonical(dict(record.values))
                rejected.append(Rejected(origin, str(error), raw))
    verdicts = list(read.values())
    if not any(verdict.choice for verdict in verdicts):
        places = "".join(f"\n  {bad.origin}: {bad.reason}" for bad in rejected[:5])
        raise DataError(
            f"there is no verdict of review {key.review} in {', '.join(map(str, files))}{places}",
            fix="give the files that raters saved, and the key that was written with their sheets",
        )
    return verdicts, rejected


def summary(key: Key, verdicts: Sequence[Verdict], rejected: Sequence[Rejected], confidence: float) -> dict[str, Any]:
    """What ``review.json`` holds.

    ``win_rate`` is that of model ``a`` over all compared rows: a row counts by the mean of its raters, ties and both bad as
    half, and so do rows with equal answers, which nobody was shown. Its interval is over rows, not over verdicts. Rows that
    were shown stand for all whose answers differ. ``word`` is ``A better``, ``B better`` or ``INCONCLUSIVE``.
    """
    given = [verdict for verdict in verdicts if verdict.choice]
    by_row = _by_row(given)
    rate, interval = _mean(_scores(by_row.values()), confidence)
    share = key.equal / key.compared
    overall, low, high = (0.5 + (1 - share) * (value - 0.5) for value in (rate, *interval))
    counts = Counter(verdict.choice for verdict in given)
    word = Difference(overall - 0.5, (low - 0.5, high - 0.5)).word
    return {
        "schema_version": 1,
        "review": key.review,
        "a": key.a,
        "b": key.b,
        "confidence": confidence,
        "win_rate": overall,
        "interval": [low, high],
        "word": {"better": "A better", "worse": "B better"}.get(word, word),
        "rows": {"compared": key.compared, "equal": key.equal, "shown": len(key.rows), "judged": len(by_row)},
        "where_different": {"win_rate": rate, "interval": list(interval)},
        "verdicts": {choice: counts[choice] for choice in CHOICES},
        "both_bad_share": counts["both bad"] / len(given),
        "raters": [_rater(rater, key, given, confidence) for rater in key.raters],
        "agreement": _agreement(key, by_row),
        "position": _position(given, confidence),
        "rejected": len(rejected),
        "comments": [
            {"rater": one.rater, "row": one.row, "choice": one.choice, "comment": one.comment} for one in verdicts if one.comment
        ],
    }


def _read(record: Record, key: Key, origin: str) -> Verdict | None:
    """The verdict of a line; ``None`` where the rater left it empty."""
    if record.values is None:
        raise BadRow(record.problem)
    values = {name.strip().casefold(): str(value).strip() for name, value in record.values.items() if value is not None}
    if absent := [name for name in _NEEDED if name not in values]:
        raise BadRow(f"missing field {absent[0]!r}")
    row = key.rows.get(values["row"])
    if values["review"] != key.review:
        raise BadRow(f"another review: {values['review']!r}")
    if row is None:
        raise BadRow(f"unknown row: {values['row']!r}")
    rater, comment = values["rater"], values.get("comment", "")
    if rater not in row.first:
        raise BadRow(f"unknown rater: {rater!r}")
    if not values["verdict"]:
        return Verdict(rater, row.id, "", None, comment, origin) if comment else None
    said = _WORDS.get(" ".join(values["verdict"].casefold().replace("_", " ").replace("-", " ").split()))
    if said is None:
        raise BadRow(f"unknown verdict: {values['verdict']!r}; known are 1, 2, tie and both bad")
    if isinstance(said, str):
        return Verdict(rater, row.id, said, None, comment, origin)
    first = row.first[rater]
    return Verdict(rater, row.id, first if said == 1 else "b" if first == "a" else "a", said == 1, comment, origin)


def _by_row(given: Iterable[Verdict]) -> dict[str, list[Verdict]]:
    rows: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in given:
        rows[verdict.row].append(verdict)
    return dict(rows)


def _scores(rows: Iterable[Sequence[Verdict]]) -> list[float]:
    return [sum(_SCORES[verdict.choice] for verdict in said) / len(said) for said in rows]


def _mean(values: Sequence[float], confidence: float) -> tuple[float, Interval]:
    """A mean over rows of values from 0 to 1 and its interval.

    Few rows, or rows that are all the same, tell the bootstrap nothing of how values vary. Then Wilson's interval takes its
    place: it is wide enough for any values from 0 to 1, as none vary more than 0 and 1 themselves do.
    """
    total = sum(values)
    if len(values) < _FEW_ROWS or len(set(values)) == 1:
        return (total / len(values) if values else 0.5, wilson(total, len(values), confidence))
    return total / len(values), mean_interval(values, confidence)


def _rater(rater: str, key: Key, given: Sequence[Verdict], confidence: float) -> dict[str, Any]:
    own = {verdict.row: verdict for verdict in given if verdict.rater == rater}
    counts = Counter(verdict.choice for verdict in own.values())
    rate, interval = _mean(_scores([verdict] for verdict in own.values()), confidence)
    return {
        "rater": rater,
        "verdicts": {choice: counts[choice] for choice in CHOICES},
        "win_rate": rate if own else None,
        "interval": list(interval) if own else None,
        "missing": [row.id for row in key.rows.values() if row.id not in own],
    }


def _agreement(key: Key, by_row: Mapping[str, Sequence[Verdict]]) -> dict[str, Any]:
    """Of raters on the same rows: in percent; Cohen's kappa for two; Krippendorff's alpha for any number."""
    ratings = []
    for said in by_row.values():
        choices = {verdict.rater: verdict.choice for verdict in said}
        ratings.append([choices.get(rater) for rater in key.raters])
    both = [line for line in ratings if sum(choice is not None for choice in line) > 1]
    kappa = None
    if len(key.raters) == 2 and both:
        first, second = ([str(line[number]) for line in both] for number in (0, 1))
        kappa = cohen_kappa(first, second)
    return {
        "rows": len(both),
        "percent": percent_agreement(both),
        "kappa": kappa,
        "alpha": krippendorff_alpha(both),
    }


def _position(given: Sequence[Verdict], confidence: float) -> dict[str, Any]:
    """How often the answer that stood first was chosen, where one was, over rows; ``biased`` where half is not possible."""
    decided = _by_row(verdict for verdict in given if verdict.first is not None)
    shares = [sum(bool(verdict.first) for verdict in said) / len(said) for said in decided.values()]
    share, interval = _mean(shares, confidence)
    return {
        "first": share if shares else None,
        "interval": list(interval) if shares else None,
        "verdicts": sum(map(len, decided.values())),
        "biased": bool(shares) and not interval[0] <= 0.5 <= interval[1],
    }

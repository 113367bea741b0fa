"""The pass over the rows: what is bad, double, leaked or too much of one kind is set aside, with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from slmops.data.columns import look_like_labels
from slmops.data.personal_data import by_pattern
from slmops.data.prepare import Examined, question_key, reject
from slmops.data.quality.agreement import Agreement, agreement, majority
from slmops.data.quality.answers import answer_problem
from slmops.data.quality.balance import over_represented
from slmops.data.quality.language import Languages
from slmops.data.quality.leakage import Overlap
from slmops.data.quality.near import EqualIndex, Groups, NearIndex, compared_text, same_numbers
from slmops.data.rows import Row
from slmops.data.sources import Rejected
from slmops.progress import Advance, progress
from slmops.sections import QualitySection

HELD_OUT = ("test", "validation")
_TICK = 256
_T = TypeVar("_T")


@dataclass
class Findings:
    """What the pass saw besides the rows that it set aside.

    Args:
        agreement: Of several answers to one question; ``None`` before the pass.
        alike: Pairs of near duplicates that stay, because their answers or numbers differ.
        leaks: Rows set aside by (the held-out split, the split they were in).
        languages: Questions by language; ``?`` where a question is too short to tell.
        personal: Rows with personal data, by kind.
    """

    agreement: Agreement | None = None
    alike: int = 0
    leaks: Counter[tuple[str, str]] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    personal: Counter[str] = field(default_factory=Counter)


def examine(
    splits: Mapping[str, Sequence[Row]],
    options: QualitySection,
    *,
    labels: Sequence[str] | None = None,
    free: bool = False,
    unfit: Callable[[Row], str | None] = lambda row: None,
    answers: Mapping[str, Sequence[str]] | None = None,
    seed: int = 0,
) -> tuple[Examined, Findings]:
    """Look at all rows once.

    Where a question stands several times with different answers, the first row with the commonest answer stays. Near
    duplicates with different answers or different numbers both stay, but belong together when splits are drawn.

    Args:
        splits: Rows by split, in the order of rank: a row that stands in several splits stays in the first.
        options: Bounds.
        labels: The labels to choose from; ``None`` finds out whether the answers are labels.
        free: Whether answers are known to be free, however few different ones there are.
        unfit: Why a model cannot take a row, or ``None``.
        answers: More answers to rows, by their id: those of several teachers.
        seed: For the choice of rows where labels are balanced.
    """
    everything = [row for rows in splits.values() for row in rows]
    free = free or (labels is None and not look_like_labels([row.answer for row in everything if row.answer is not None]))
    run = _Pass(options, unfit, answers or {}, seed)
    with progress("checks of single rows", len(everything), "rows") as advance:
        kept = {name: run.sound(_counted(rows, advance), free=free) for name, rows in splits.items()}
    kept = run.without_equal(kept)
    with progress("duplicates and leaks", sum(map(len, kept.values())), "rows") as advance:
        kept = run.without_alike(kept, advance)
    kept = run.without_overlap(kept)
    if options.max_label_ratio is not None and not free:
        kept["train"] = run.balanced(kept["train"], options.max_label_ratio)
    return Examined(kept, run.rejected, run.groups.as_dict()), run.findings


class _Pass:
    def __init__(
        self,
        options: QualitySection,
        unfit: Callable[[Row], str | None],
        answers: Mapping[str, Sequence[str]],
        seed: int,
    ) -> None:
        self.options, self.unfit, self.answers, self.seed = options, unfit, answers, seed
        self.languages = Languages(options.language or "prompt")
        self.rejected: list[Rejected] = []
        self.findings = Findings()
        self.groups = Groups()

    def sound(self, rows: Iterable[Row], *, free: bool) -> list[Row]:
        """The rows whose question and answer, taken by themselves, are in order."""

        def problem(row: Row) -> str | None:
            self.findings.languages[self.languages.of(row.question) or "?"] += 1
            texts = [*(turn["content"] for turn in row.messages), row.answer or ""]
            self.findings.personal.update({span.kind for text in texts for span in by_pattern(text)})
            characters = sum(len(turn["content"]) for turn in row.messages)
            if characters > self.options.longest:
                return f"too long: the question has {characters:,} characters"
            if reason := self.unfit(row):
                return reason
            if row.answer is None or not free:
                return None
            return answer_problem(row.question, row.answer, self.options, self.languages)

        return self._filtered(rows, problem)

    def without_equal(self, splits: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
        """Each question once, with the commonest of its answers."""
        stays: dict[str, tuple[str, Row]] = {}
        several: dict[str, list[str]] = {}
        kept: dict[str, list[Row]] = {}
        for name, rows in splits.items():
            same: dict[str, list[Row]] = {}
            for row in rows:
                same.setdefault(question_key(row), []).append(row)
            for key, copies in same.items():
                given = [row.answer for row in copies if row.answer is not None]
                given += self.answers.get(copies[0].id, ())
                several[f"{name} {key}"] = given
                best, share = majority(given) or (None, 0.0)
                if len(given) < 2 or share >= self.options.min_agreement:
                    stays.setdefault(key, (name, next((row for row in copies if row.answer == best), copies[0])))

            def problem(row: Row, name: str = name) -> str | None:
                key = question_key(row)
                if key not in stays:
                    given = several[f"{name} {key}"]
                    return f"disagreement: {len(set(given))} different ones among {len(given)} answers"
                return self._double(row, name, *stays[key])

            kept[name] = self._filtered(rows, problem)
        self.findings.agreement = agreement(several)
        return kept

    def without_alike(self, splits: Mapping[str, Sequence[Row]], advance: Advance) -> dict[str, list[Row]]:
        """Without the near duplicates that have the same answer and the same numbers.

        Inside a held-out split all of them stay: what is measured with is not thinned out.
        """
        places = [(name, row) for name, rows in splits.items() for row in rows]
        everything = [row for _, row in places]
        threshold = self.options.near_duplicates
        index = EqualIndex(everything) if threshold is None else NearIndex(everything, threshold)
        kept: dict[str, list[Row]] = {name: [] for name in splits}
        for at, (name, row) in enumerate(_counted(places, advance)):
            found = [(*places[other], share) for other, share in index.similar(at)]
            found = [item for item in found if item[0] != name or name not in HELD_OUT]
            same = next((item for item in found if same_answer(row, item[1]) and same_numbers(row, item[1])), None)
            if same is not None:
                self._set_aside(row, self._alike(row, name, *same))
                continue
            self.findings.alike += len(found)
            for _, other, _ in found:
                self.groups.join(row.id, other.id)
            index.add(at)
            kept[name].append(row)
        return kept

    def without_overlap(self, splits: Mapping[str, Sequence[Row]]) -> dict[str, list[Row]]:
        """Without the training rows that hold a validation or test text."""
        where = {row.id: name for name in HELD_OUT for row in splits.get(name, ())}
        held_out = [row for name in HELD_OUT for row in splits.get(name, ())]
        overlap = Overlap(held_out, [row for name, rows in splits.items() if name not in HELD_OUT for row in rows])
        kept = {}
        for name, rows in splits.items():

            def problem(row: Row, name: str = name) -> str | None:
                found = overlap.most(row) if name not in HELD_OUT else None
                if found is None or found[1] < self.options.leak_overlap or not same_answer(row, found[0]):
                    return None
                self.findings.leaks[where[found[0].id], name] += 1
                return f"leak: it holds {found[1]:.0%} of {found[0].origin}"

            kept[name] = self._filtered(rows, problem)
        return kept

    def balanced(self, rows: Sequence[Row], ratio: float) -> list[Row]:
        """Without what the commonest labels have too much of."""
        surplus = over_represented(rows, ratio, question_key, self.seed)

        def problem(row: Row) -> str | None:
            found = surplus.get(question_key(row))
            return f"balanced: of {found[0]:,} rows of {row.answer!r} {found[1]:,} stay" if found else None

        return self._filtered(rows, problem)

    def _double(self, row: Row, name: str, where: str, first: Row) -> str | None:
        """Why a row cannot stay beside the one of the same question that does."""
        if row is first:
            return None
        if _leaks(where, name):
            self.findings.leaks[where, name] += 1
            return f"leak: the question of {first.origin}"
        if same_answer(row, first):
            return f"duplicate of {first.origin}"
        return f"conflicting answer: {row.answer!r}, but {first.origin} has {first.answer!r}"

    def _alike(self, row: Row, name: str, where: str, other: Row, share: float) -> str:
        same_words = compared_text(row) == compared_text(other)
        if _leaks(where, name):
            self.findings.leaks[where, name] += 1
            return f"leak: {'' if same_words else f'{share:.2f} of '}the question of {other.origin}"
        return f"near duplicate: {'the words' if same_words else f'{share:.2f}'} of {other.origin}"

    def _filtered(self, rows: Iterable[Row], problem: Callable[[Row], str | None]) -> list[Row]:
        kept = []
        for row in rows:
            reason = problem(row)
            if reason is None:
                kept.append(row)
            else:
                self._set_aside(row, reason)
        return kept

    def _set_aside(self, row: Row, reason: str) -> None:
        self.rejected.append(reject(row, reason))


def _leaks(where: str, name: str) -> bool:
    return where in HELD_OUT and name != where


def same_answer(one: Row, other: Row) -> bool:
    """Whether two rows have no different answers."""
    return one.answer is None or other.answer is None or one.answer == other.answer


def _counted(items: Sequence[_T], advance: Advance) -> Iterator[_T]:
    for start in range(0, len(items), _TICK):
        chunk = items[start : start + _TICK]
        yield from chunk
        advance(len(chunk))

"""Whether distilling is worth it: the rule, and what plain fine-tuning would reach with more labelled rows.

Distillation can give what the teacher knows more than cheaper ways reach. These rivals are the fine-tuned student, the untuned
one and TF-IDF. All comparisons are paired over the probe's test rows and go by the bound of their interval:

- **yes** where a student was distilled on a part of the pool for a trial, and is better than every rival.
- **no** where a rival is non-inferior to the teacher: the upper bound of the teacher's lead over it is below the margin. After a
  trial the same must hold of the trial's student, which may pass its teacher.
- **no** where the teacher leads, but there is no unlabelled row for it to answer and it cannot make new ones.
- **yes** where the teacher's lead over every rival is above zero. A teacher that is not tuned on the labelled rows must lead
  over what the fine-tuned student would reach with all of them. A tuned one gains from them as well, so it is compared at
  equal rows.
- else **INCONCLUSIVE**, with how many more test rows would settle it.

"Yes" needs all of several tests and so no correction for their number; "no" needs one and has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import numpy as np

from slmops.evaluation.stats import Difference, paired
from slmops.evaluation.tally import Tally

Word = Literal["yes", "no", "INCONCLUSIVE"]

LEAST_ROWS = 30
"""Test rows below which nothing is concluded."""

_POWER = 0.8
_FINE_TUNED = "fine-tuned"


@dataclass(frozen=True)
class Evidence:
    """What was measured: scores of the same test rows, in one order.

    Args:
        teacher: Of the teacher.
        fine_tuned: Of the student fine-tuned on so many labelled rows; one entry or more.
        rivals: Of what else is cheaper, by name.
        distilled: Of the student distilled for a trial, if there was one.
        labelled: Labelled rows there are in all.
        tuned: Whether the teacher learned from the same labelled rows.
        unlabelled: Rows for the teacher to answer.
        makes_rows: Whether the teacher could make new ones.
    """

    teacher: Sequence[float]
    fine_tuned: Mapping[int, Sequence[float]]
    rivals: Mapping[str, Sequence[float]] = field(default_factory=dict)
    distilled: Sequence[float] | None = None
    labelled: int = 0
    tuned: bool = False
    unlabelled: int = 0
    makes_rows: bool = True


@dataclass(frozen=True)
class Finding:
    """What the rule says.

    Args:
        word: ``yes``, ``no`` or ``INCONCLUSIVE``.
        why: A sentence or two.
        leads: The teacher's lead over each rival that the rule went by.
        gains: The lead of the student distilled for a trial, over the same.
        more_rows: Test rows beside these that would about settle it, where it is open.
    """

    word: Word
    why: str
    leads: Mapping[str, Difference]
    gains: Mapping[str, Difference]
    more_rows: int | None = None


def decide(evidence: Evidence, *, confidence: float, margin: float) -> Finding:
    """Apply the rule of this module.

    Args:
        evidence: What was measured.
        confidence: Of the intervals.
        margin: Lead of the teacher, in the measure's units, that is too small to distill for.
    """
    rivals: dict[str, Sequence[float]] = {_FINE_TUNED: _fine_tuned(evidence), **evidence.rivals}
    trial = evidence.distilled
    leads = {name: _paired(evidence.teacher, scores, confidence) for name, scores in rivals.items()}
    gains = {name: _paired(trial, scores, confidence) for name, scores in rivals.items()} if trial is not None else {}

    def found(word: Word, why: str, more_rows: int | None = None) -> Finding:
        return Finding(word, why, leads, gains, more_rows)

    rows = len(evidence.teacher)
    if rows < LEAST_ROWS:
        return found("INCONCLUSIVE", f"{rows} test rows are too few to say anything", LEAST_ROWS - rows)
    if gains and all(gain.interval[0] > 0 for gain in gains.values()):
        return found("yes", "the student distilled for a trial is already better than everything that is cheaper")
    short = [name for name, lead in leads.items() if lead.interval[1] < margin]
    equal = [name for name in short if not gains or gains[name].interval[1] < margin]
    if equal:
        return found("no", f"the teacher's lead over {_named(equal)} is below {margin:g} by the bound of its interval")
    opened = [name for name, lead in leads.items() if lead.interval[0] <= 0 or name in short]
    if opened:
        better = {name: trial if trial is not None and name in short else evidence.teacher for name in opened}
        more = max(rows_to_settle(better[name], rivals[name], margin, confidence) for name in opened)
        who = "the trial's student" if all(name in short for name in opened) else "the teacher"
        return found("INCONCLUSIVE", f"the intervals do not say whether {who} beats {_named(opened)}", more)
    if not evidence.unlabelled and not evidence.makes_rows:
        return found("no", "the teacher knows more, but there is no row for it to answer: collect unlabelled rows first")
    why = "the teacher knows more than everything that is cheaper reaches"
    if not evidence.unlabelled:
        why += "; there is no unlabelled row, so let it make new ones first (slmops augment)"
    return found("yes", why)


def extrapolate(curve: Mapping[int, Sequence[float]], rows: int) -> np.ndarray:
    """What each test row would score after fine-tuning on more labelled rows, shape (test rows,).

    Quality is taken as linear in the logarithm of the labelled rows: the last point of the curve, and its least-squares slope
    from there. The estimate is linear in the scores, so its interval over test rows is that of any mean of scores. Learning
    curves flatten, so it is more likely too high than too low. Other seeds of the training are not in the interval.

    Args:
        curve: Scores of the test rows by labelled rows.
        rows: Labelled rows to go to; not more than the curve's last gives its last point.
    """
    sizes = sorted(curve)
    scores = np.asarray([curve[size] for size in sizes], dtype=np.float64)
    last: np.ndarray = scores[-1]
    if len(sizes) < 2 or rows <= sizes[-1]:
        return last
    logs = np.log2(sizes)
    centred = logs - logs.mean()
    slope: np.ndarray = centred @ scores / (centred @ centred)
    if slope.mean() <= 0:
        return last
    return last + slope * math.log2(rows / sizes[-1])


def rows_to_settle(a: Sequence[float], b: Sequence[float], margin: float, confidence: float) -> int:
    """Test rows beside these after which ``a - b`` is likely (8 in 10) shown to be above zero or below the margin.

    The normal approximation for a mean of paired differences, with their present mean and spread; ``margin`` is above zero.
    """
    each = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    mean, spread = float(each.mean()), float(each.std(ddof=1))
    normal = NormalDist()
    needed = (normal.inv_cdf(0.5 + confidence / 2) + normal.inv_cdf(_POWER)) * spread
    return max(1, math.ceil((needed / max(mean, margin - mean)) ** 2) - len(each))


def _paired(a: Sequence[float], b: Sequence[float], confidence: float) -> Difference:
    return paired(Tally.mean(a), Tally.mean(b), confidence)


def _fine_tuned(evidence: Evidence) -> list[float]:
    """The scores that the fine-tuned student is compared with."""
    most = max(evidence.fine_tuned)
    compared: list[float] = extrapolate(evidence.fine_tuned, most if evidence.tuned else max(most, evidence.labelled)).tolist()
    return compared


def _named(rivals: Sequence[str]) -> str:
    titles = {"tfidf": "TF-IDF", "untuned": "the untuned student", _FINE_TUNED: "the fine-tuned student"}
    return " and ".join(titles.get(rival, rival) for rival in rivals)

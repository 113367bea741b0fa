"""Comparisons that say little: a gate that holds a model against another one that is itself no good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from slmops.evaluation.formats import inside
from slmops.evaluation.gates import Gate
from slmops.evaluation.measures import MEASURES
from slmops.evaluation.outputs import Outputs
from slmops.evaluation.quality import tally
from slmops.evaluation.stats import estimate
from slmops.evaluation.systems import System
from slmops.tasks.base import closed_labels


def blind_score(outputs: Outputs, measure: str) -> float:
    """What a model would score that gives one and the same answer to every row, the best one for it.

    Of tasks whose answers are labels: with the most frequent label. Of all others it is taken to be 0, the score of an empty
    answer.

    Args:
        outputs: For the rows and the task; its answers are not looked at.
        measure: A measure where higher is better.
    """
    if closed_labels(outputs.task) is None:
        return 0.0
    most = Counter(str(row.answer) for row in outputs.rows).most_common(1)[0][0]
    return tally(measure, Outputs(outputs.task, outputs.rows, [most] * len(outputs.rows))).value


def weak_references(gates: Sequence[str], systems: Mapping[str, System], outputs: Outputs, confidence: float) -> list[str]:
    """A sentence for each gate that goes by a model which is not shown to be better than a blind answer.

    Args:
        gates: As they were written.
        systems: The measured models by name.
        outputs: Of any of the models.
        confidence: Of the interval that shows it.
    """
    said = []
    for gate in map(Gate.parse, gates):
        reference = systems.get(gate.relative_to or "")
        if reference is None:
            continue
        measure = gate.measure or reference.primary_measure
        known = reference.tallies.get(measure)
        if known is None or MEASURES[measure].better != "higher" or measure in _OF_OTHER_THINGS:
            continue
        least = blind_score(outputs, measure)
        low, high = estimate(known, confidence).interval
        if low > least:
            continue
        score = f"{inside(MEASURES[measure].title)} {known.value:.3f} ({low:.3f} to {high:.3f})"
        said.append(
            f"{gate.text} says little: {gate.relative_to} itself has {score}, and one and the same answer to every row "
            f"{least:.3f}. A gate on the measure by itself tells more: '{measure} >= 0.5'."
        )
    return said


_OF_OTHER_THINGS = ("valid_share", "schema_valid", "assertion_rate", "agreement", "win_rate", "rubric_score", "similarity")

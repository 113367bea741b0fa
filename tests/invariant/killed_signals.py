"""Takes a teacher's signals; waits for ever at the place given by the last two arguments, so that it can be killed there.

Arguments: model folder, target folder, form (topk, sampled, or layers, which is topk with some), ``chunk`` or ``row``, number of
chunks or rows that are done by then (a number that is never reached: it ends by itself).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slmops.data.rows import Row
from slmops.data.templates import choose_template
from slmops.models.load import load_tokenizer
from slmops.sections import SignalsSection
from slmops.signals.forms import form_of
from slmops.signals.internals import Layers
from slmops.signals.store import write_signals
from slmops.teachers.local import LocalTeacher
from slmops.teachers.signals import internal_rows, signal_rows

ROWS = [Row.of(f"question {number}" + " please" * (number % 5), f"delivery {number % 3}") for number in range(14)]
FINGERPRINTS = {"teacher": "t"}


class Stalling(LocalTeacher):
    """Does not come back from the batch after so many."""

    batches = 0
    last = 0

    def observe(self, *arguments: Any) -> Any:
        if Stalling.batches == Stalling.last:
            time.sleep(600)
        Stalling.batches += 1
        return super().observe(*arguments)


def stalling(pairs: Iterator[Any], last: int) -> Iterator[Any]:
    for number, pair in enumerate(pairs):
        if number == last:
            (target / "reached").touch()
            time.sleep(600)
        yield pair


if __name__ == "__main__":
    model, target, kind, place, last = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])
    Stalling.last = last if place == "chunk" else 1000
    teacher = Stalling.load(model, choose_template(load_tokenizer(model), "compact"), "float32")
    form = form_of(SignalsSection(form="topk" if kind == "layers" else kind, k=4, samples=9))
    layers = Layers((1, 3), (3,)) if kind == "layers" else None
    options = {"chunk_rows": 3, "work": target / "work"}
    pairs = signal_rows(teacher, ROWS, teacher.template, form, layers=layers, **options)
    if layers is not None:
        write_signals(target / "distributions", pairs, FINGERPRINTS)
        pairs = internal_rows(ROWS, teacher.template, **options)
    write_signals(target, stalling(pairs, last if place == "row" else 1000), FINGERPRINTS)

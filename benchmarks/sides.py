"""What the benchmarks of training share: sides that run as processes in turn, on the same rows, and ratios with targets."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from slmops.data.rows import Row
from slmops.data.support_messages import SupportMessages, generate
from slmops.data.templates import Template, choose_template
from slmops.files import read_jsonl, write_jsonl
from slmops.models.load import load_tokenizer
from slmops.progress import say

SEED, WARM, HELD_OUT = 1, 3, 64
"""Of the batches; updates that are not timed; rows that no side trains on."""

_ROWS = "rows.jsonl"


def in_a_process(side: str) -> dict[str, Any]:
    """A side with the same command line in a process of its own."""
    say(f"  {side}")
    done = subprocess.run([sys.executable, *sys.argv, "--side", side], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{side} failed (exit status {done.returncode})")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def middle(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure of the rounds."""
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def against(values: Mapping[str, float], targets: Mapping[str, float], most: Sequence[str]) -> list[dict[str, Any]]:
    """Values beside their targets, which are least ones but for those named."""
    return [
        {
            "what": name,
            "value": value,
            "target": targets[name],
            "reached": value <= targets[name] if name in most else value >= targets[name],
        }
        for name, value in values.items()
    ]


def target_lines(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Those as plain text."""
    return [
        f"{one['what']:<18}{one['value']:>10.4g}  target {one['target']:g}: {'reached' if one['reached'] else 'not reached'}"
        for one in results
    ]


def machine() -> dict[str, Any]:
    """Where it was run."""
    return {"cores": os.cpu_count(), "machine": platform.processor() or platform.machine()}


class Times:
    """When updates ended."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def note(self) -> None:
        """An update has ended; the first time, none has yet."""
        self._ends.append(time.monotonic())

    @contextmanager
    def as_progress(self, *_: Any, **__: Any) -> Iterator[Callable[[int], None]]:
        """In place of the package's progress."""
        self.note()
        yield lambda _: self.note()

    def rates(self, tokens: Sequence[int]) -> dict[str, Any]:
        """Tokens a second without the first updates, and the time of a middle one."""
        each = [end - start for start, end in pairwise(self._ends)][WARM:]
        return {"tokens_per_s": sum(tokens[WARM:]) / sum(each), "step_s": statistics.median(each), "steps": len(each)}


def read_rows(data: Path | None, count: int) -> list[Row]:
    """Rows of a file of JSON lines with ``prompt`` and ``response``, or support messages."""
    if data is not None:
        return [Row.of(line["prompt"], line["response"]) for line in read_jsonl(data)][:count]
    made = generate(SupportMessages(labelled=18, pool=count, validation=18, test=18, seed=7))
    return [Row.of(text, label) for text, label in made["pool"]]


def write_rows(root: Path, rows: Sequence[Row]) -> None:
    """Keep the rows for all sides: those to train on, and behind them those that are held out."""
    write_jsonl(root / _ROWS, [row.as_dict() for row in rows])


def rows_of(root: Path, count: int) -> list[Row]:
    """The rows that are trained on."""
    return [Row.from_dict(line) for line in read_jsonl(root / _ROWS)][:count]


def held_out(root: Path, count: int) -> list[Row]:
    """The rows behind those, on which all sides are compared."""
    return [Row.from_dict(line) for line in read_jsonl(root / _ROWS)][count:]


def lengths(template: Template, rows: Sequence[Row]) -> list[int]:
    """Tokens of each row."""
    return [len(template.encode(row).input_ids) for row in rows]


def template_of(folder: Path) -> Template:
    """The compact chat template with a model's tokenizer."""
    return choose_template(load_tokenizer(folder), "compact")


def loss_by_answer(model: Any, template: Template, rows: Sequence[Row]) -> float:
    """Nats by answer; by answer, since tokens differ with the vocabulary."""
    from slmops.evaluation.perplexity import reference_losses

    return statistics.fmean(loss for loss, _, _ in reference_losses(model.eval(), template, rows, context=1024))

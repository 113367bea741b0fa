"""Progress of long work on standard error: a bar with rate and ETA on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINE_EVERY_SECONDS = 10.0

Advance = Callable[[int], None]
Note = Callable[[], str]


def say(text: str, level: int = logging.INFO) -> None:
    """Print one line to standard error, which leaves standard output to results.

    Args:
        text: The line.
        level: Its weight, as in ``logging``; below :func:`least_level` it is not printed.
    """
    if level >= least_level():
        print(text, file=sys.stderr, flush=True)


def least_level() -> int:
    """The level from which on something is said: that of the logger ``slmops``, where it has one, else ``INFO``."""
    return logging.getLogger("slmops").level or logging.INFO


@contextmanager
def speaking(level: int) -> Iterator[None]:
    """While it lasts, what is of less weight than a level of ``logging`` is not said."""
    logger = logging.getLogger("slmops")
    before = logger.level
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.setLevel(before)


def duration(seconds: float) -> str:
    """Seconds as people say them: ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


@contextmanager
def progress(what: str, total: int, unit: str, *, done: int = 0, note: Note | None = None) -> Iterator[Advance]:
    """Show the progress of a loop; yields a function that takes the number of units just finished.

    Args:
        what: What is going on, such as ``teacher answers``.
        total: Units in all.
        unit: Plural name of a unit, such as ``rows``.
        done: Units that an earlier, interrupted run already finished; they do not count for the rate.
        note: Says more of the state of the work, such as what it has cost.
    """
    if least_level() > logging.INFO:
        yield lambda units: None
        return
    show = _bar if sys.stderr.isatty() else _lines
    with show(what, total, unit, done, note) as advance:
        yield advance


@contextmanager
def _bar(what: str, total: int, unit: str, done: int, note: Note | None) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    started = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, completed=done, rate="", note="")
        count = 0

        def advance(units: int) -> None:
            nonlocal count
            count += units
            rate = count / max(time.monotonic() - started, 1e-9)
            bar.update(task, advance=units, rate=f"{rate:.1f} {unit}/s", note=f", {note()}" if note else "")

        yield advance


@contextmanager
def _lines(what: str, total: int, unit: str, done: int, note: Note | None) -> Iterator[Advance]:
    started = last = time.monotonic()
    count = 0

    def line() -> str:
        elapsed = time.monotonic() - started
        rate = count / max(elapsed, 1e-9)
        left = (total - done - count) / rate if rate > 0 else 0.0
        eta = f", ETA {duration(left)}" if left >= 1 else ""
        more = f", {note()}" if note else ""
        return f"  {what}: {done + count}/{total} {unit}, {rate:.1f} {unit}/s{more}, {duration(elapsed)}{eta}"

    def advance(units: int) -> None:
        nonlocal count, last
        count += units
        now = time.monotonic()
        if now - last >= _LINE_EVERY_SECONDS:
            last = now
            say(line())

    yield advance
    say(line())

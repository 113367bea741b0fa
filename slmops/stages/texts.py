"""Texts without answers as the data of a fine-tuning: doubles set aside, and some held out."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from slmops.artifact import StageKey
from slmops.data.prepare import prepare, write
from slmops.data.rows import Row
from slmops.data.sources import RawSplits
from slmops.errors import DataError
from slmops.progress import say
from slmops.stages.context import DataContext
from slmops.stages.preparing import open_source
from slmops.workspace import Made, StageResult

_BREAKS = (r"\n\s*\n", r"\n", r"\s")
"""Where a text is cut in two: the end of a paragraph, else of a line, else of a word."""

_SEARCHED = 0.05
"""Share of a text in which such a place is looked for."""


def prepare_texts(context: DataContext) -> StageResult:
    """The texts of a run, each once, some of them held out: the last part of a single text, else whole texts drawn by the seed."""
    recipe = context.recipe
    section = recipe.data
    source = open_source(context)
    shares = {name: getattr(section, name) for name in ("max_bad_share", "validation_share", "test_share")}
    config = {"task_type": recipe.task_type, "seed": recipe.seed, **shares}
    key = StageKey("data", "dataset", 4, config, {"source": source.fingerprint()})

    def make(folder: Path, work: Path) -> Made:
        raw = source.read()
        if len(raw.pool) == 1 and not raw.validation:
            raw = _in_two(raw, section.validation_share)
        prepared = prepare(raw, labels=None, check_answer=lambda row: None, seed=recipe.seed, **shares)
        # Rows without an answer are a pool to the preparation; here they are what is trained on.
        prepared = replace(prepared, train=prepared.pool, pool=[])
        if not prepared.train:
            raise DataError("no text is left to train on", where="data.source", fix="give more texts")
        write(prepared, folder)
        characters = {name: sum(len(row.question) for row in prepared.split(name)) for name in ("train", "validation", "test")}
        held = [f"{name} {len(prepared.split(name)):,} ({count:,} characters)" for name, count in characters.items() if count]
        say("  texts: " + ", ".join(held))
        return Made({**prepared.facts(), "characters": characters}, seed=recipe.seed)

    return context.workspace.stage(key, make)


def _in_two(raw: RawSplits, share: float) -> RawSplits:
    """A single text, whose last part validates."""
    (row,) = raw.pool
    text = row.question
    wanted = round(len(text) * (1 - share))
    reach = max(1, round(len(text) * _SEARCHED))
    cuts = [found for pattern in _BREAKS if (found := _near(pattern, text, wanted, reach))]
    cut = cuts[0] if cuts else wanted
    first, last = text[:cut], text[cut:]
    if not first.strip() or not last.strip():
        raise DataError("the text is too short to set a part of it aside", where=row.origin, fix="give more, or --validation_data")
    parts = [Row.of(part, None, f"{row.origin} ({name} part)") for part, name in ((first, "first"), (last, "last"))]
    return replace(raw, pool=parts[:1], validation=parts[1:])


def _near(pattern: str, text: str, wanted: int, reach: int) -> int | None:
    """The end of the match that is nearest to a place, or ``None`` where there is none within reach."""
    start = max(0, wanted - reach)
    ends = [start + match.end() for match in re.finditer(pattern, text[start : wanted + reach])]
    return min(ends, key=lambda end: abs(end - wanted), default=None)

"""Sixty phrases with a tone each, and ``slmops finetune`` on them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.commands import Call, Result

LABELS = ("delivery", "refund", "account")
TEMPLATE = "{phrase} => {tone}"


def phrases(folder: Path) -> Path:
    """A file of them, in which the tone is a word of the phrase."""
    file = folder / "train.jsonl"
    rows = ({"phrase": f"please {LABELS[n % 3]} number {n}", "tone": LABELS[n % 3]} for n in range(60))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def finetuning(call: Call, file: Path, *fixed: object) -> Call:
    """``finetune`` of a model on a file of phrases into a folder, with these words and more; in float32, and all rows are kept."""
    settings = ["data.quality.language=any", "data.quality.near_duplicates=null", "training.precision=float32"]

    def run(model: Path, output_path: Path, *more: object) -> Result:
        given = ["--model_name_or_path", model, "--data_name", file, "--text_template", TEMPLATE, "--output_path", output_path]
        return call("finetune", *given, *fixed, *settings, *more)

    return run

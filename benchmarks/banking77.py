"""The recipe ``support-routing`` on real messages: intents of Banking77 in place of the generated ones.

    python benchmarks/banking77.py --data PATH/TO/intent_banking77 [--json] [KEY=VALUE ...]

The data set (Casanueva et al. 2020, CC BY 4.0) is two CSV files, ``train.csv`` and ``test.csv``, with the columns ``text``
and ``category``. Of each chosen intent so many training rows keep their label; the others lose it and become the pool.
Nothing of the recipe is changed but its data.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
from pathlib import Path

from slmops.config import load_recipe
from slmops.evaluation.terminal import render_table
from slmops.files import read_json, write_jsonl
from slmops.pipeline import run
from slmops.recipes import find_recipe

_SPLITS = ("train", "pool", "validation", "test")


def main() -> None:
    """Make the splits, run the recipe on them, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.csv and test.csv")
    parser.add_argument("--output_path", type=Path, default=Path("runs/banking77"))
    parser.add_argument("--intents", type=int, default=12, help="how many")
    parser.add_argument("--choose", choices=["file", "hash"], default="file", help="the first in the file, or by a hash")
    parser.add_argument("--labelled", type=int, default=8, help="rows an intent that keep their label; a quarter as many validate")
    parser.add_argument("--pool", type=int, default=75, help="rows an intent that lose their label")
    parser.add_argument("--json", action="store_true", help="print the report and the speedup as one JSON object")
    options, overrides = parser.parse_known_args()
    if not (options.data / "train.csv").is_file():
        sys.exit(f"no train.csv in {options.data}: give the folder of Banking77 with --data")
    folder = options.output_path / "data"
    files = write_splits(options.data, folder, options.choose, options.intents, options.labelled, options.pool)
    source = json.dumps({"name": "files", **{split: str(file) for split, file in files.items()}})
    values = [f"data.source={source}", f"output_path={options.output_path}", "name=banking77", *overrides]
    outcome = run(load_recipe(find_recipe("support-routing"), values))
    report = read_json(outcome.root / "report.json")
    print(json.dumps({"speedup": speedup(report), "report": report}) if options.json else render_table(report))


def write_splits(data: Path, folder: Path, choose: str, intents: int, labelled: int, pool: int) -> dict[str, Path]:
    """One JSON-lines file a split; which rows keep their label is decided by a hash of their text."""
    train, test = read(data / "train.csv"), read(data / "test.csv")
    names = list(dict.fromkeys(label for _, label in train))
    chosen = (sorted(names, key=rank) if choose == "hash" else names)[:intents]
    splits: dict[str, list[dict[str, str]]] = {split: [] for split in _SPLITS}
    for label in chosen:
        texts = sorted((text for text, own in train if own == label), key=rank)
        held_out = max(1, labelled // 4)
        for number, text in enumerate(texts[: held_out + labelled + pool]):
            split = "validation" if number < held_out else "train" if number < held_out + labelled else "pool"
            splits[split].append({"text": text} if split == "pool" else {"text": text, "label": label})
        splits["test"] += [{"text": text, "label": label} for text, own in test if own == label]
    files = {split: folder / f"{split}.jsonl" for split in _SPLITS}
    for split, file in files.items():
        write_jsonl(file, splits[split])
    return files


def read(file: Path) -> list[tuple[str, str]]:
    """Text and label of each row; labels as words."""
    with file.open(encoding="utf-8", newline="") as stream:
        return [(row["text"].strip(), row["category"].replace("_", " ")) for row in csv.DictReader(stream)]


def rank(text: str) -> str:
    """A place in an order that has nothing to do with the content."""
    return hashlib.sha256(text.encode()).hexdigest()


def speedup(report: dict) -> float | None:
    """Median latency of the float32 teacher divided by that of what is packaged."""
    rows = {row["name"]: row["measures"]["latency_p50_ms"] for row in report["rows"]}
    return rows["teacher"] / rows["packaged"] if "packaged" in rows else None


if __name__ == "__main__":
    main()

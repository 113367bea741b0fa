"""A whole run on a real data set of each task type: the package's recipe on so many rows, with a real model, and its report.

    python benchmarks/real_sets.py --data PATH/TO/DATASETS [--set nli ...] [--json] [KEY=VALUE ...]

``PATH`` holds a folder a data set: nli_cf, qa_commonsenseqa, math_gsm8k, summarization_scitldr, conversation_tm4, ner_wnut17 and
instruction_dolly_small. Which rows are taken goes by a hash of their text. Of the training rows some keep their answer, some
lose it and become the pool. Rows and updates are few, so that a set takes minutes on two cores: the figures say what the
report of such a run shows, not how good a model of this size can become.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmops.config import load_recipe
from slmops.evaluation.measures import MEASURES
from slmops.evaluation.terminal import render_table
from slmops.files import read_json, write_text
from slmops.pipeline import run
from slmops.recipes import find_recipe


@dataclass(frozen=True)
class RealSet:
    """Where a set's rows are.

    Args:
        recipe: Of the package.
        train: File of the training rows; pool and, without files of their own, the held-out rows come from it too.
        test: File of the test rows.
        longest: Characters of a row at most, so that a run on a CPU takes minutes.
        shorter: Further values of the recipe, for the same reason.
    """

    recipe: str
    train: str
    test: str | None = None
    longest: int = 2_000
    shorter: tuple[str, ...] = ()


SETS = {
    "nli": RealSet("nli", "nli_cf/train.tsv", "nli_cf/test.tsv"),
    "qa": RealSet("multiple-choice", "qa_commonsenseqa/train_rand_split.jsonl", "qa_commonsenseqa/dev_rand_split.jsonl"),
    "math": RealSet("math", "math_gsm8k/train.jsonl", "math_gsm8k/test.jsonl", 900),
    "summarization": RealSet("summarization", "summarization_scitldr/train.jsonl", "summarization_scitldr/test.jsonl"),
    "conversation": RealSet("conversation", "conversation_tm4/tm4_chat.jsonl", None, 1_600),
    "extraction": RealSet("entities", "ner_wnut17/wnut17train.conll", "ner_wnut17/emerging.test.annotated"),
    "generation": RealSet(
        "instructions", "instruction_dolly_small/dolly_hhrlhf_train_small.jsonl", None, 900, ("answers.max_new_tokens=64",)
    ),
}
_QUICK = (
    "teacher.tune.max_steps=60",
    "training.max_steps=60",
    "answers.min_success=0",
    "evaluation.latency_requests=20",
    "evaluation.concurrency=[1,8]",
)


def main() -> None:
    """Run the recipe of each set, and print its table and what became of its gates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--set", choices=list(SETS), action="append", help="one of them; may be given again")
    parser.add_argument("--output_path", type=Path, default=Path("runs/real-sets"))
    parser.add_argument("--labelled", type=int, default=160, help="training rows that keep their answer")
    parser.add_argument("--pool", type=int, default=320, help="training rows that lose it")
    parser.add_argument("--test", type=int, default=120, help="test rows; half as many validate")
    parser.add_argument("--json", action="store_true", help="print a JSON object a set, one a line")
    options, overrides = parser.parse_known_args()
    counts = {"train": options.labelled, "pool": options.pool, "validation": options.test // 2, "test": options.test}
    for name in options.set or SETS:
        real = SETS[name]
        root = options.output_path / name
        files = write_splits(options.data, real, root / "data", counts)
        given = [f"data.source.{split}={file}" for split, file in files.items()]
        outcome = run(
            load_recipe(
                find_recipe(real.recipe), [*given, *_QUICK, *real.shorter, f"output_path={root}", f"name={name}", *overrides]
            )
        )
        report = read_json(outcome.root / "report.json")
        print(json.dumps({"set": name, **in_short(report)}) if options.json else f"{name}: {_said(report)}\n{render_table(report)}")


def write_splits(data: Path, real: RealSet, folder: Path, counts: dict[str, int]) -> dict[str, Path]:
    """A file a split, in the form of the set's own; no row stands in two."""
    train = chosen(data / real.train, real.longest)
    test = chosen(data / real.test, real.longest) if real.test else train
    files = {}
    for split, count in counts.items():
        source = train if split in ("train", "pool") or real.test is None else test
        head, rows, joint = source
        taken, rows[:] = rows[:count], rows[count:]
        if len(taken) < count:
            sys.exit(f"{real.train} has too few rows for {split}: {len(taken)} of {count}")
        file = folder / f"{split}{Path(real.train).suffix}"
        write_text(file, joint.join([*head, *taken]) + joint)
        files[split] = file
    return files


def chosen(file: Path, longest: int) -> tuple[list[str], list[str], str]:
    """The header, the rows in an order that has nothing to do with their content, and what stands between them."""
    if not file.is_file():
        sys.exit(f"no file {file}: give the folder of the data sets with --data")
    text = file.read_text(encoding="utf-8")
    tagged = file.suffix not in (".tsv", ".jsonl")
    rows = re.split(r"\n\s*\n", text.strip()) if tagged else text.splitlines()
    head, rows = (rows[:1], rows[1:]) if file.suffix == ".tsv" else ([], rows)
    rows = sorted((row for row in rows if row.strip() and len(row) <= longest), key=rank)
    return head, rows, "\n\n" if tagged else "\n"


def rank(text: str) -> str:
    """A place in an order."""
    return hashlib.sha256(text.encode()).hexdigest()


def in_short(report: dict[str, Any]) -> dict[str, Any]:
    """What a table of several runs needs: the measure that decides with its interval, times and verdicts."""
    primary = report["primary_measure"]
    rows = {
        row["name"]: {
            primary: row["measures"][primary],
            "interval": row["intervals"].get(primary),
            **{name: row["measures"].get(name) for name in ("latency_p50_ms", "memory_mb", "size_mb")},
        }
        for row in report["rows"]
    }
    differences = [
        {"a": one["a"], "b": one["b"], "difference": one["difference"], "interval": one["interval"], "word": one["word"]}
        for one in report["differences"]
    ]
    return {"measure": primary, "rows": rows, "differences": differences, "verdict": report["verdict"]}


def _said(report: dict[str, Any]) -> str:
    verdict = report["verdict"]
    return f"{MEASURES[report['primary_measure']].title}. {verdict['sentence']} {verdict['why']}"


if __name__ == "__main__":
    main()

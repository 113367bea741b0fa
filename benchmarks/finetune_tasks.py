"""What fine-tuning makes of a model, on a real set of each task and by each method, with intervals.

    python benchmarks/finetune_tasks.py --data PATH/TO/DATASETS [--set tone ...] [--method lora ...] [--steps N] [--rows N] [--json]

``PATH`` holds a folder a data set: tone_phrases, intent_banking77, extraction_snips and summarization_scitldr. Rows are taken by a
hash of their text, none twice, and none in two splits. The model before training is asked with the task's instruction, since it
cannot know what is wanted; the others as they were trained, with the question alone. The weights with the lowest loss on the
validation rows are kept. Intervals are of 95 %, over test rows; one training seed. Rows and updates are few, so that a set and
method take minutes on two cores. Everything is kept in ``--output_path`` and continued there.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from banking77 import write_splits as write_intents
from real_sets import rank

from slmops.api import evaluate
from slmops.config import FinetuneRecipe, build
from slmops.data.rows import Row
from slmops.data.sources import FilesSource
from slmops.files import write_json, write_jsonl
from slmops.finetuning import finetune
from slmops.models.adapter import ADAPTER_WEIGHTS
from slmops.models.bottleneck_folder import BOTTLENECK_WEIGHTS
from slmops.models.load import tensor_infos
from slmops.models.resolve import resolve

UNTUNED = "untuned"
METHODS: dict[str, dict[str, Any] | None] = {
    UNTUNED: None,
    "full": {},
    "lora": {"lora": {}},
    "dora": {"lora": {"dora": True}},
    "qlora": {"lora": {"bits": 4}},
    "pfeiffer": {"bottleneck": {"kind": "pfeiffer"}},
    "houlsby": {"bottleneck": {"kind": "houlsby"}},
}
"""What of the training differs; learning rates, and an adapter's rank and scale, are the package's."""

_INTENTS = 24


@dataclass(frozen=True)
class TaskSet:
    """A set, and what of it is taken.

    Args:
        task_type: Kind of work.
        measure: That decides.
        read: All rows that may be trained on, and those that test where the set has such.
        rows: Training rows; a sixth as many validate.
        test: Test rows.
        steps: Updates.
        batch_size: Rows of one.
        max_new_tokens: Longest answer.
        longest: Characters of a question at most.
    """

    task_type: str
    measure: str
    read: Callable[[Path, Path], tuple[list[Row], list[Row]]]
    rows: int
    test: int
    steps: int
    batch_size: int = 16
    max_new_tokens: int = 12
    longest: int = 2_000


def _files(train: str, test: str | None = None, **columns: Any) -> Callable[[Path, Path], tuple[list[Row], list[Row]]]:
    def read(data: Path, _: Path) -> tuple[list[Row], list[Row]]:
        raw = FilesSource(train=data / train, test=data / test if test else None, **columns).read()
        return raw.labelled, raw.test

    return read


def _intents(data: Path, folder: Path) -> tuple[list[Row], list[Row]]:
    files = write_intents(data / "intent_banking77", folder, "hash", _INTENTS, 40, 0)
    raw = FilesSource(train=files["train"], test=files["test"], input_field="text", answer_field="label").read()
    return raw.labelled, raw.test


SETS = {
    "tone": TaskSet("classification", "accuracy", _files("tone_phrases/dataset-classification.json"), 600, 300, 150),
    "intents": TaskSet("classification", "accuracy", _intents, 600, 400, 150),
    "slots": TaskSet(
        "extraction",
        "entity_f1",
        _files("extraction_snips/train_GetWeather_full.json", "extraction_snips/validate_GetWeather.json"),
        *(600, 100, 120),
        max_new_tokens=64,
    ),
    "summaries": TaskSet(
        "summarization",
        "rouge_l",
        _files(
            "summarization_scitldr/train.jsonl", "summarization_scitldr/test.jsonl", input_field="source", answer_field="target"
        ),
        *(360, 100, 60),
        batch_size=8,
        max_new_tokens=64,
    ),
}


def main() -> None:
    """Train and score each method on each set, and print a table of each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--set", choices=list(SETS), action="append", help="one of them; may be given again")
    parser.add_argument("--method", choices=list(METHODS), action="append", help="one of them; may be given again")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--steps", type=int, help="updates, in place of the set's")
    parser.add_argument("--rows", type=int, help="training rows, in place of the set's")
    parser.add_argument("--test", type=int, help="test rows, in place of the set's")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output_path", type=Path, default=Path("runs/finetune-tasks"))
    parser.add_argument("--json", action="store_true", help="print a JSON object a set, one a line")
    options = parser.parse_args()
    for name in options.set or SETS:
        root = options.output_path / name
        files = write_splits(options, SETS[name], root / "data")
        rows = {method: measured(options, name, method, files) for method in options.method or METHODS}
        found = {"set": name, "measure": SETS[name].measure, "model": options.model, "rows": rows}
        write_json(root / "table.json", found)
        print(json.dumps(found) if options.json else f"{name}\n{table(found)}", flush=True)


def write_splits(options: argparse.Namespace, chosen: TaskSet, folder: Path) -> dict[str, Path]:
    """A file of JSON lines a split; no question stands in two, or twice in one."""
    known, test = ([row for row in rows if len(row.question) <= chosen.longest] for rows in chosen.read(options.data, folder))
    known.sort(key=lambda row: rank(row.question))
    test.sort(key=lambda row: rank(row.question))
    rows, tested = options.rows or chosen.rows, options.test or chosen.test
    seen: set[str] = set()

    def take(source: list[Row], count: int) -> list[Row]:
        found = []
        for row in source:
            words = " ".join(row.question.lower().split())
            if len(found) < count and words not in seen:
                seen.add(words)
                found.append(row)
        return found

    splits = {"test": take(test or known, tested), "validation": take(known, math.ceil(rows / 6)), "train": take(known, rows)}
    files = {split: folder / f"{split}.jsonl" for split in splits}
    for split, own in splits.items():
        write_jsonl(files[split], [{"question": row.question, "answer": _answer(row)} for row in own])
    return files


def _answer(row: Row) -> Any:
    """All right answers where there are several, as the reader takes them."""
    return list(row.answers) if row.others else row.answer


def measured(options: argparse.Namespace, name: str, method: str, files: dict[str, Path]) -> dict[str, Any]:
    """A method's model of a set: what it scores on the test rows, and what it took."""
    chosen, root = SETS[name], options.output_path / name / method
    training = METHODS[method]
    facts = {} if training is None else trained(options, chosen, root, training, files)
    scores = evaluate(
        root if facts else options.model,
        files["test"],
        [chosen.measure],
        chosen.task_type,
        output_path=root.parent / "evaluation",
        input_field="question",
        answer_field="answer",
        ask="row" if facts else "task",
        max_new_tokens=chosen.max_new_tokens,
        evaluation={"latency_requests": 5, "concurrency": [1], "batch_size": 16},
    )
    low, high = scores.intervals[chosen.measure]
    return {"score": scores[chosen.measure], "interval": [low, high], **facts}


def trained(
    options: argparse.Namespace, chosen: TaskSet, root: Path, training: dict[str, Any], files: dict[str, Path]
) -> dict[str, Any]:
    """Fine-tune a model in a folder; seconds, updates and what was trained."""
    recipe = {
        "name": root.name,
        "task_type": chosen.task_type,
        "output_path": root,
        "seed": options.seed,
        "chat_template": "compact",
        "model": options.model,
        "score": False,
        "data": {
            "source": {
                "name": "files",
                **{split: str(files[split]) for split in ("train", "validation")},
                "input_field": "question",
                "answer_field": "answer",
            },
            "test_share": 0,
        },
        "training": {
            "max_steps": options.steps or chosen.steps,
            "batch_size": chosen.batch_size,
            "max_length": 1024,
            "patience": None,
            **training,
        },
    }
    facts = finetune(build(FinetuneRecipe, recipe, where=root.name), ["learning_rate"]).facts
    adapters = [file for name in (ADAPTER_WEIGHTS, BOTTLENECK_WEIGHTS) if (file := root / "adapter" / name).is_file()]
    trainable = sum(math.prod(one.shape) for file in adapters for one in tensor_infos(file).values()) or facts["parameters"]
    return {
        "trainable": trainable,
        "parameters": resolve(options.model).parameters,
        "seconds": facts["seconds"],
        "updates": facts["steps"],
        "kept": facts.get("kept"),
        "training_rows": facts["rows"],
        "diagnosis": facts["diagnosis"]["kind"],
    }


def table(found: dict[str, Any]) -> str:
    """The comparison in Markdown."""
    lines = [f"| method | {found['measure']} (95 %) | trained parameters | seconds | updates (kept) |", "|---|---|---|---|---|"]
    for method, row in found["rows"].items():
        low, high = row["interval"]
        score = f"{row['score']:.3f} ({low:.3f}–{high:.3f})"
        took: Sequence[str] = ("", "", "")
        if "seconds" in row:
            kept = f" ({row['kept']})" if row["kept"] else ""
            took = (f"{row['trainable'] / 1e6:.2f} M", f"{row['seconds']:.0f}", f"{row['updates']}{kept}")
        lines.append(f"| {method} | {score} | {' | '.join(took)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

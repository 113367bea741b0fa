"""Which layers of a model a student should keep: validation loss after a few updates, for the sets of several recipes.

    python benchmarks/kept_layers.py --data PATH/TO/DATASETS [--set summarization ...] [--keep first ...] [--steps N] [--json]

A student is cut with as many layers as the recipe of its task has, once for each way to choose them, and trained on labelled rows
alone, with the recipe's other values. What it says of rows that it has not seen is the loss, in nats a token of their answers; a
model that copies or not is told apart long before its answers score. One training seed. Everything is kept in ``--output_path`` and
continued there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from real_sets import RealSet, write_splits
from sides import template_of

from slmops.config import FinetuneRecipe, Recipe, build, load_recipe
from slmops.data.sources import FilesSource
from slmops.files import write_json
from slmops.finetuning import finetune
from slmops.models.cutplan import CutPlan
from slmops.models.resolve import resolve
from slmops.models.shrink import Wish, cut_model, plan_cut
from slmops.recipes import find_recipe
from slmops.workspace import remove_tree

SETS = {
    "summarization": RealSet("summarization", "summarization_scitldr/train.jsonl", None, 2_000),
    "math": RealSet("math", "math_gsm8k/train.jsonl", None, 700),
    "conversation": RealSet("conversation", "conversation_tm4/tm4_chat.jsonl", None, 600),
    "explained-answers": RealSet("explained-answers", "rationales_flan_cot/ecqa_train.tsv", None, 700),
    "instructions": RealSet("instructions", "instruction_dolly_small/dolly_hhrlhf_train_small.jsonl", None, 700),
    "slots": RealSet("slots", "support_multidogo/insurance/train.tsv", None, 400),
}
WAYS = ("first", "uniform", "importance", "copying")
_LOOKS = 4
"""Times that the loss is measured in a training, the last at its end."""
_TEXTS = 32
"""Of training rows, from which ``importance`` measures layers."""


def main() -> None:
    """Train a student for each set and way, and print a table of each set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--set", choices=list(SETS), action="append", help="one of them; may be given again")
    parser.add_argument("--keep", choices=WAYS, action="append", help="one of them; may be given again")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="what is cut")
    parser.add_argument("--layers", type=int, help="of all students, in place of the recipes'")
    parser.add_argument("--steps", type=int, default=150, help="updates")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--rows", type=int, default=1200, help="training rows")
    parser.add_argument("--output_path", type=Path, default=Path("runs/kept-layers"))
    parser.add_argument("--json", action="store_true", help="print a JSON object a set, one a line")
    options = parser.parse_args()
    for name in options.set or SETS:
        root, real = options.output_path / name, SETS[name]
        files = write_splits(options.data, real, root / "data", {"train": options.rows, "validation": 100})
        recipe = load_recipe(find_recipe(real.recipe), [f"data.source.{split}={file}" for split, file in files.items()])
        layers, parent = options.layers or recipe.student.layers, resolve(options.model).path
        texts = some_texts(recipe, parent)
        ways = {}
        for way in options.keep or WAYS:
            folder = root / f"{way}-{layers}"
            plan = plan_cut(parent, Wish(layers, way), rows=texts)
            ways[way] = {"layers": plan.layers, "curve": curve(options, recipe, folder, cut(parent, plan, folder))}
        found = {"set": name, "layers": layers, "ways": ways}
        write_json(root / "table.json", found)
        print(json.dumps(found) if options.json else table(found), flush=True)


def some_texts(recipe: Recipe, model: Path) -> list[list[int]]:
    """Token ids of a few of a recipe's training rows."""
    source = build(FilesSource, {key: value for key, value in recipe.data.source.items() if key != "name"}, where="data.source")
    return template_of(model).token_ids(source.read().labelled[:_TEXTS])


def cut(parent: Path, plan: CutPlan, root: Path) -> Path:
    """The folder of the planned student, which is there whole or not at all."""
    student, partial = root / "student", root / ".student.partial"
    if not student.is_dir():
        remove_tree(partial)
        cut_model(parent, partial, plan, root)
        partial.rename(student)
    return student


def curve(options: argparse.Namespace, recipe: Recipe, root: Path, student: Path) -> dict[int, float]:
    """Train a student; the validation losses by update."""
    training = {
        **recipe.training.model_dump(exclude={"objectives"}),
        "max_steps": options.steps,
        "batch_size": options.batch_size,
        "eval_steps": -(-options.steps // _LOOKS),
    }
    same = recipe.model_dump(include={"task_type", "task", "seed", "chat_template", "data"})
    of_student = {**same, "name": root.name, "output_path": root / "run", "model": str(student), "score": False}
    facts = finetune(build(FinetuneRecipe, {**of_student, "training": training}, where=root.name)).facts
    return {point["step"]: point["validation"] for point in facts["curve"]}


def table(found: dict[str, Any]) -> str:
    """The losses in Markdown."""
    updates = list(next(iter(found["ways"].values()))["curve"])
    lines = [
        f"| {found['set']}, {found['layers']} layers by | {' | '.join(f'after {step}' for step in updates)} | which |",
        "|---|" + "---|" * (len(updates) + 1),
    ]
    for way, row in found["ways"].items():
        losses = " | ".join(f"{loss:.3f}" for loss in row["curve"].values())
        lines.append(f"| {way} | {losses} | {' '.join(map(str, row['layers']))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

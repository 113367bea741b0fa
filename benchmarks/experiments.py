"""Does distillation work? Teacher, untuned, control, answers only and distilled on real sets, with several training seeds.

    python benchmarks/experiments.py --data PATH/TO/DATASETS [--set intents ...] [--size small ...] [--seeds 3] [--json]
    python benchmarks/experiments.py --data PATH/TO/DATASETS --set intents --variant jsd --variant importance

One teacher a set is tuned on the labelled rows and answers the pool. Students of two sizes are cut from the same model. Each of
the three trainings tries every learning rate with the first seed and keeps what scores best on the validation rows, so the control
is searched for as long as the others; the other seeds train with that. Intervals hold for other test rows and other seeds.
``--variant`` adds students distilled with other objectives, or with other layers. Everything is kept in
``--output_path`` and continued there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from banking77 import write_splits as write_intents
from real_sets import RealSet, write_splits

from slmops.config import Recipe, build, load_recipe
from slmops.evaluation.outputs import Outputs
from slmops.evaluation.quality import tally
from slmops.evaluation.stats import Difference, estimate, paired
from slmops.evaluation.systems import RESULT
from slmops.evaluation.tally import Tally
from slmops.files import read_json, write_json
from slmops.models.load import parameter_count
from slmops.recipes import find_recipe
from slmops.search.trying import learn
from slmops.stages.context import MODEL, Context, rows_of
from slmops.stages.exporting import answer_split
from slmops.stages.learning import Lesson
from slmops.workspace import StageResult

CONFIDENCE = 0.95
COUNTS = {"train": 400, "pool": 1200, "validation": 100, "test": 300}


@dataclass(frozen=True)
class Experiment:
    """A set, what of it is taken, the values of its recipe that differ from the package's, and the tokens of its small student."""

    recipe: str
    splits: Callable[[Path, Path, float], dict[str, Path]]
    values: tuple[str, ...] = ()
    smallest_vocabulary: int = 6500


def _real(real: RealSet, **counts: int) -> Callable[[Path, Path, float], dict[str, Path]]:
    rows = COUNTS | counts
    return lambda data, folder, share: write_splits(data, real, folder, {name: round(share * n) for name, n in rows.items()})


def _intents(data: Path, folder: Path, share: float) -> dict[str, Path]:
    return write_intents(data / "intent_banking77", folder, "hash", 24, round(share * 16), round(share * 60))


SETS = {
    "intents": Experiment("intents", _intents, ("data.source.answer_field=label",)),
    "slots": Experiment(
        "slots",
        _real(RealSet("slots", "support_multidogo/insurance/train.tsv", "support_multidogo/insurance/test.tsv", 400)),
        ("answers.max_new_tokens=32",),
    ),
    # With 400 labelled rows a teacher of this size stays at chance.
    "nli": Experiment(
        "nli", _real(RealSet("nli", "nli_cf/train.tsv", "nli_cf/test.tsv", 400), train=4000), ("teacher.tune.max_steps=600",), 6900
    ),
    "conversation": Experiment(
        "conversation",
        _real(RealSet("conversation", "conversation_tm4/tm4_chat.jsonl", None, 600)),
        ("answers.max_new_tokens=32",),
    ),
}
SIZES: dict[str, Callable[[Experiment], tuple[str, ...]]] = {
    "small": lambda experiment: ("student.layers=4", f"student.vocabulary={experiment.smallest_vocabulary}"),
    "medium": lambda experiment: ("student.layers=6", "student.vocabulary=8192"),
}
ARMS: dict[str, Callable[[Lesson], StageResult]] = {
    "control": Lesson.control_alone,
    "answers-only": Lesson.answers_only,
    "distilled": Lesson.distilled,
}
_CE = {"name": "cross_entropy", "weight": 0.3}
_KL = {"name": "forward_kl", "weight": 0.7}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "forward_kl-alone": {"training": {"objectives": [{"name": "forward_kl"}]}},
    "forward_kl-at-2": {"training": {"objectives": [_CE, {**_KL, "kd_temperature": 2.0}]}},
    **{
        name: {"training": {"objectives": [_CE, {"name": name, "weight": 0.7}]}}
        for name in ("reverse_kl", "jsd", "skew_kl", "total_variation")
    },
    "hidden_states": {"training": {"objectives": [_CE, _KL, {"name": "hidden_states", "weight": 0.1}]}},
    "attention_relations": {"training": {"objectives": [_CE, _KL, {"name": "attention_relations", "weight": 0.1}]}},
    "on_policy": {"training": {"objectives": [_CE, _KL], "on_policy": {"share": 0.5}}},
    "importance": {"student": {"keep": "importance"}},
    "uniform": {"student": {"keep": "uniform"}},
    "copying": {"student": {"keep": "copying"}},
}
"""What to compare with the recipe's own, which is 0.3 cross-entropy + 0.7 forward KL and the first layers."""


def main() -> None:
    """Run the sets one after the other, and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--set", choices=list(SETS), action="append", help="one of them; may be given again")
    parser.add_argument("--size", choices=list(SIZES), action="append", help="one of the students; may be given again")
    parser.add_argument("--variant", choices=list(VARIANTS), action="append", default=[], help="one more; may be given again")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds")
    parser.add_argument("--rates", type=float, nargs="+", default=[5e-4, 1.5e-3], help="learning rates that are tried")
    parser.add_argument("--share", type=float, default=1.0, help="of the rows")
    parser.add_argument("--teachers_only", action="store_true", help="stop when the teachers have answered")
    parser.add_argument("--output_path", type=Path, default=Path("runs/experiments"))
    parser.add_argument("--json", action="store_true", help="print a JSON object a set and size, one a line")
    options, overrides = parser.parse_known_args()
    for name in options.set or SETS:
        root = options.output_path / name
        files = SETS[name].splits(options.data, root / "data", options.share)
        values = [f"data.source.{split}={file}" for split, file in files.items()]
        values += ["training.max_steps=200", *SETS[name].values, f"output_path={root}", f"name={name}"]
        for size in options.size or SIZES:
            recipe = load_recipe(find_recipe(SETS[name].recipe), [*values, *SIZES[size](SETS[name]), *overrides])
            if options.teachers_only:
                learn(recipe)
                break
            found = compare(recipe, options.rates, options.seeds, options.variant)
            write_json(root / f"{size}.json", found)
            print(
                json.dumps({"set": name, "size": size, **found}) if options.json else f"{name}, {size}\n{table(found)}", flush=True
            )


def compare(recipe: Recipe, rates: Sequence[float], seeds: int, variants: Sequence[str]) -> dict[str, Any]:
    """Train all students of a recipe; what each scores on the test rows, and what lies between them."""
    lesson, _ = learn(recipe)
    first = recipe.seed
    trained: dict[str, Learned] = {"untuned": Learned.of(lesson, "untuned", [lesson.untuned])}
    if lesson.teacher.model is not None:
        trained["teacher"] = Learned.of(lesson, "teacher", [lesson.teacher.model])
    arms = {name: (lesson, train) for name, train in ARMS.items()}
    arms |= {name: (_variant(recipe, name), Lesson.distilled) for name in variants}
    for name, (own, train) in arms.items():
        tried = {rate: train(_with(own, first, rate)) for rate in rates}
        best = max(tried, key=lambda rate: _on_validation(lesson, name, tried[rate]))
        rest = [train(_with(own, seed, best)) for seed in range(first + 1, first + seeds)]
        trained[name] = replace(Learned.of(lesson, name, [tried[best], *rest]), rate=best)
    return {
        "measure": lesson.context.task(lesson.data).primary_measure,
        "rows": {name: learned.as_dict(trained.get("teacher")) for name, learned in trained.items()},
        "differences": list(_differences(trained)),
    }


@dataclass(frozen=True)
class Learned:
    """Models of one kind, one a training seed, and what they score on the test rows."""

    parameters: int
    scores: list[Tally]
    rate: float | None = None

    @classmethod
    def of(cls, lesson: Lesson, name: str, models: Sequence[StageResult]) -> Learned:
        """Let the models answer the test rows."""
        count = parameter_count(models[0].path / MODEL)
        return cls(count, [_scored(lesson, name, model, "test") for model in models])

    def as_dict(self, teacher: Learned | None) -> dict[str, Any]:
        """Figures for people and programs."""
        found = estimate(self.scores[0], CONFIDENCE, seeds=self.scores[1:])
        return {
            "parameters": self.parameters,
            "seeds": [round(one.value, 4) for one in self.scores],
            "score": round(found.value, 4),
            "interval": [round(end, 4) for end in found.interval],
            "of_teacher": round(found.value / teacher.scores[0].value, 4) if teacher and teacher.scores[0].value else None,
            "smaller": round(teacher.parameters / self.parameters, 2) if teacher else None,
            "learning_rate": self.rate,
        }


def table(found: dict[str, Any]) -> str:
    """The comparison as a Markdown table, and the differences below it."""
    lines = [f"| | parameters | {found['measure']} (95 %) | seeds | of the teacher's | rate |", "|---|---|---|---|---|---|"]
    for name, row in found["rows"].items():
        low, high = row["interval"]
        share = "" if row["of_teacher"] is None else f"{row['of_teacher']:.1%}"
        rate = "" if row["learning_rate"] is None else f"{row['learning_rate']:g}"
        seeds = ", ".join(f"{one:.3f}" for one in row["seeds"])
        lines.append(
            f"| {name} | {row['parameters'] / 1e6:.1f} M | {row['score']:.3f} ({low:.3f}–{high:.3f}) | {seeds} | {share} | {rate} |"
        )
    for one in found["differences"]:
        low, high = one["interval"]
        lines.append(
            f"{one['a']} − {one['b']}: {100 * one['difference']:+.1f} ({100 * low:.1f} to {100 * high:.1f}): {one['word']}"
        )
    return "\n".join(lines) + "\n"


def _with(lesson: Lesson, seed: int, rate: float) -> Lesson:
    """The same data, answers, signals and untrained student; another training seed and learning rate."""
    context = lesson.context
    training = context.recipe.training.model_copy(update={"learning_rate": rate})
    return replace(
        lesson, context=Context(context.recipe.model_copy(update={"seed": seed, "training": training}), context.workspace)
    )


def _variant(recipe: Recipe, name: str) -> Lesson:
    """The lesson of a recipe with other values; what they do not touch is shared."""
    values = recipe.model_dump(mode="json")
    for section, changed in VARIANTS[name].items():
        values[section] |= changed
    return learn(build(Recipe, values, where=name))[0]


def _on_validation(lesson: Lesson, name: str, model: StageResult) -> tuple[float, float]:
    """What decides between learning rates: the measure, and among equals the loss."""
    loss = model.facts["curve"][-1]["validation"]
    return _scored(lesson, name, model, "validation").value, -loss if loss is not None else 0.0


def _scored(lesson: Lesson, name: str, model: StageResult, split: str) -> Tally:
    task = lesson.context.task(lesson.data)
    answers = answer_split(lesson.context, name, model, lesson.data, split)
    return tally(task.primary_measure, Outputs(task, rows_of(lesson.data, split), read_json(answers.path / RESULT)["answers"]))


def _differences(trained: dict[str, Learned]) -> Iterator[dict[str, Any]]:
    pairs = [("distilled", "control"), ("distilled", "answers-only"), ("answers-only", "control"), ("distilled", "teacher")]
    pairs += [(name, "distilled") for name in trained if name in VARIANTS]
    for a, b in pairs:
        if a in trained and b in trained:
            one, other = trained[a].scores, trained[b].scores
            found: Difference = paired(one[0], other[0], CONFIDENCE, seeds_a=one[1:], seeds_b=other[1:])
            yield {
                "a": a,
                "b": b,
                "difference": found.value,
                "interval": list(found.interval),
                "p": found.p_value,
                "word": found.word,
            }


if __name__ == "__main__":
    main()

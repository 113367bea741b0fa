"""The sentences of an evaluation's report: the verdict, what would settle what is open, how to make it again, caveats."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from slmops.evaluation.formats import inside
from slmops.evaluation.gates import GateResult, overall
from slmops.evaluation.measures import Measure
from slmops.evaluation.options import EvaluateOptions
from slmops.evaluation.stats import Difference
from slmops.evaluation.weak_references import weak_references
from slmops.stages.parts import needed_part

if TYPE_CHECKING:
    from slmops.stages.evaluated import Evaluation

_WORDS = {"better": "better than", "worse": "worse than", "INCONCLUSIVE": "not to be told apart from"}


def verdict(
    evaluation: Evaluation,
    results: Sequence[GateResult],
    row: Mapping[str, Any],
    measure: Measure,
    compared: Sequence[tuple[str, Difference]],
) -> dict[str, Any]:
    """What came of the gates in a word, and the first model's figure beside the others' in a sentence.

    Args:
        evaluation: What was measured.
        results: Of the gates.
        row: The first model's part of the report.
        measure: The one that decides.
        compared: The other models, and the first one's difference to each.
    """
    primary = evaluation.systems[evaluation.subjects[0].key].primary_measure
    low, high = row["intervals"].get(primary, (float("nan"),) * 2)
    value = row["measures"][primary]
    name = inside(measure.title)
    said = f"{evaluation.first} has {name} {value:.3f} ({low:.3f} to {high:.3f}) on {len(evaluation.rows):,} test rows"
    others = [
        f"{_WORDS[found.word]} {other} ({found.value:+.3f}, {found.interval[0]:+.3f} to {found.interval[1]:+.3f})"
        for other, found in compared
    ]
    sentence = f"{said}; it is {', '.join(others)}." if others else f"{said}."
    if not results:
        return {"word": "measured", "sentence": sentence, "packaged": None, "why": "No gate was asked for."}
    by_word = {word: [result.gate for result in results if result.verdict == word] for word in ("failed", "INCONCLUSIVE", "passed")}
    why = "; ".join(f"{word}: {', '.join(gates)}" for word, gates in by_word.items() if gates)
    systems = {other: evaluation.system(other) for other in evaluation.names}
    outputs = evaluation.outputs[evaluation.subjects[0].key]
    weak = weak_references([result.gate for result in results], systems, outputs, evaluation.confidence)
    return {"word": overall(list(results)), "sentence": sentence, "packaged": None, "why": " ".join([f"{why}.", *weak])}


def needed(first: str, results: Sequence[GateResult], compared: Sequence[tuple[str, Difference]]) -> list[str]:
    """What more test rows would settle, a sentence each."""
    said = [
        f"{result.settled_by.capitalize()} would settle the gate '{result.gate}', if they come out as these did."
        for result in results
        if result.settled_by
    ]
    for other, found in compared:
        said += needed_part(first, other, found)
    return said


def command(options: EvaluateOptions) -> str:
    """The command that makes the report again."""
    parts = ["slmops", "evaluate", *options.models]
    for flag, value in (
        ("--test_data", options.test_data),
        ("--output_path", options.output_path),
        ("--task_type", options.task_type),
        ("--text_template", options.text_template),
        ("--input_field", options.input_field),
        ("--answer_field", options.answer_field),
        ("--tags_field", options.tags_field),
        ("--chat_template", options.chat_template),
        ("--ask", options.ask),
        ("--metric", ",".join(options.metrics) or None),
        ("--embeddings", options.embeddings),
        ("--max_new_tokens", options.max_new_tokens),
        ("--max_cost", options.max_cost),
    ):
        parts += [flag, str(value)] if value is not None else []
    for flag, values in (("--gate", options.gates), ("--slice", options.slices), ("--train_data", options.train_data)):
        parts += [part for value in values for part in (flag, str(value))]
    given = {"task": options.task, "evaluation": options.evaluation.model_dump(mode="json", exclude_defaults=True)}
    for section, settings in given.items():
        parts += [part for key, value in settings.items() for part in ("--set", f"{section}.{key}={json.dumps(value)}")]
    return shlex.join(parts)


def notes(evaluation: Evaluation) -> list[str]:
    """What a reader should know beside the numbers."""
    said = []
    if all(len(evaluation.seeds(name)) == 1 for name in evaluation.names):
        said.append(
            "One training seed a model: the intervals hold for other test rows, not for other seeds. A name given several times is "
            "one model trained with several seeds."
        )
    dependent = [name for name in evaluation.names if evaluation.seeds(name)[0].decoding.get("batch_dependent")]
    if dependent:
        said.append(
            f"Answers of {', '.join(dependent)} can depend on what else is in a batch, where two tokens are about equally likely."
        )
    if not evaluation.options.train_data:
        said.append("No training data were given, so nobody looked whether test rows stand in them: --train_data names the files.")
    if evaluation.data.facts["rejected"]:
        said.append(f"{evaluation.data.facts['rejected']:,} rows of the file could not be used; rejected.jsonl has the reasons.")
    return said

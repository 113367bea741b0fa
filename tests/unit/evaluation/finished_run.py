"""The folder of a finished run, as far as its measurements go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from slmops.artifact import StageKey, complete
from slmops.data.rows import Row
from slmops.evaluation.systems import RESULT
from slmops.files import write_json, write_jsonl


def write_run(
    root: Path, questions: Sequence[str], answers: Mapping[str, Sequence[str]], *, packaged: str = "", scheme: str = "int4"
) -> Path:
    """Write a run with test rows and, by the name of a measurement, the answers to them."""
    data_key = StageKey("data", "dataset", 1, {"questions": list(questions)})
    data = root / "artifacts" / f"data-{data_key.id[:12]}"
    write_jsonl(data / "test.jsonl", [Row.of(question, "gold").as_dict() for question in questions])
    complete(data, data_key, started=0)
    stages = {"data": data.name}
    for name, said in answers.items():
        key = StageKey(f"measure.{name}", "measurement", 1, {}, {"data": data_key.id})
        folder = root / "artifacts" / f"measure.{name}-{key.id[:12]}"
        write_json(folder / RESULT, {"answers": list(said)})
        complete(folder, key, started=0)
        stages[key.stage] = folder.name
    write_json(root / "run.json", {"stages": stages})
    export = [{"model": packaged, "attempts": [], "chosen": scheme}] if packaged else []
    write_json(root / "report.json", {"export": export, "verdict": {"packaged": packaged or None}})
    return root

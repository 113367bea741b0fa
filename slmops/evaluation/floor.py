"""What an engine takes by itself: the measurement of a tiny random model on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from slmops.data.rows import Row
from slmops.files import write_jsonl

if TYPE_CHECKING:
    from slmops.evaluation.measure import MeasureSpec

_ROWS = (("where is it", "delivery"), ("my money back", "refund"))
_LONGEST = 256


def floor_spec(runtime: str, work: Path, *, threads: int | None, max_length: int) -> MeasureSpec:
    """The measurement whose ``process_mb`` and ``peak_process_mb`` are an engine's fixed cost.

    Args:
        runtime: Name of the engine.
        work: Where the tiny model is made, in the engine's form.
        threads: CPU threads.
        max_length: Prompt and answer together, in tokens, that the measured models accept.
    """
    from slmops.evaluation.measure import MeasureSpec

    write_jsonl(work / "rows.jsonl", [Row.of(text, answer).as_dict() for text, answer in _ROWS])
    return MeasureSpec(
        runtime=runtime,
        model=_tiny(runtime, work, min(max_length, _LONGEST)),
        test=work / "rows.jsonl",
        task_type="classification",
        task={"labels": [answer for _, answer in _ROWS]},
        threads=threads,
        latency_requests=5,
        batch_size=2,
        max_new_tokens=8,
        concurrency=(1,),
    )


def _tiny(runtime: str, work: Path, max_length: int) -> Path:
    from slmops.testing.tiny import save_tiny_model

    model = save_tiny_model(work / "tiny", layers=1)
    target = work / f"tiny-{runtime}"
    if runtime == "openvino-genai":
        from slmops.export.openvino import export_openvino

        export_openvino(model, target)
        return target
    if runtime == "torch":
        return model
    from slmops.export.onnx import export_onnx

    export_onnx(model, target, "int4", max_length=max_length)
    return target

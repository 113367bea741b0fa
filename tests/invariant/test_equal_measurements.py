"""Two measurements of one model give the same quality numbers, on an engine whose answers do not depend on batching."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from slmops.data.rows import Row
from slmops.evaluation.measure import MeasureSpec, measure
from slmops.export.onnx import export_onnx
from slmops.files import write_jsonl
from slmops.models.load import load_model
from slmops.runtimes.base import Sampling, open_runtime
from slmops.testing.tiny import save_tiny_model

QUALITY = ("quality", "answers", "correct", "decoding")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose answers differ: with larger weights it does more than repeat the token it just read."""
    folder = tmp_path_factory.mktemp("exported")
    source = save_tiny_model(folder / "tiny", layers=2)
    model = load_model(source)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            weights.mul_(10 if "layers" in name and weights.dim() == 2 else 1)
    model.save_pretrained(source)
    export_onnx(source, folder / "onnx", "int4", max_length=128)
    return folder / "onnx"


@pytest.fixture
def spec(exported: Path, tmp_path: Path) -> MeasureSpec:
    rows = [Row.of("where is my parcel " + "please " * (n % 5) + str(n), f"it is {n}") for n in range(23)]
    write_jsonl(tmp_path / "rows.jsonl", [row.as_dict() for row in rows])
    return MeasureSpec(
        runtime="ort-genai",
        model=exported,
        test=tmp_path / "rows.jsonl",
        task_type="generation",
        task={},
        threads=1,
        latency_requests=7,
        batch_size=4,
        max_new_tokens=8,
        concurrency=(1, 2),
    )


def test_measured_again_and_in_other_batches_the_quality_is_the_same(spec: MeasureSpec, tmp_path: Path) -> None:
    assert not open_runtime("ort-genai", spec.model, threads=1).info.batch_dependent
    first, again = measure(spec, tmp_path / "first"), measure(spec, tmp_path / "again")
    assert {name: first[name] for name in QUALITY} == {name: again[name] for name in QUALITY}
    otherwise = measure(spec.model_copy(update={"batch_size": 9}), tmp_path / "otherwise")
    assert {name: first[name] for name in QUALITY[:-1]} == {name: otherwise[name] for name in QUALITY[:-1]}
    assert len(set(first["answers"])) > 3
    assert first["decoding"]["compared"] == 7
    assert first["decoding"]["differing"] == 0
    assert first["decoding"]["sampling"] == {**asdict(Sampling(max_new_tokens=8)), "stop": []}
    assert first["decoding"]["batch_dependent"] is False
    assert first["decoding"]["template"]

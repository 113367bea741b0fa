from __future__ import annotations

import pytest

from slmops.export.onnx import export_onnx
from slmops.export.openvino import export_openvino
from slmops.runtimes.base import RUNTIMES
from slmops.testing.runtimes import check_runtime
from slmops.testing.tiny import save_tiny_model

EXPORTED = {"ort-genai": "onnx", "openvino-genai": "openvino"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    model = save_tiny_model(root / "tiny")
    export_onnx(model, root / "onnx", "int4", max_length=128)
    export_openvino(model, root / "openvino")
    return {name: root / EXPORTED[name] if name in EXPORTED else model for name in RUNTIMES.names()}


@pytest.mark.parametrize("name", RUNTIMES.names())
def test_every_registered_runtime_keeps_the_contract(name, folders):
    check_runtime(RUNTIMES.get(name), folders[name])

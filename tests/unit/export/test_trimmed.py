"""A model with a smaller vocabulary is packaged like any other: the engines' own tokenizers agree with ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmops.data.chat import ChatTemplate
from slmops.export.onnx import export_onnx
from slmops.export.openvino import export_openvino
from slmops.export.parity import Side, compare
from slmops.models.load import load_tokenizer
from slmops.models.vocabulary import Vocabulary, trim_vocabulary
from slmops.runtimes.base import Sampling, open_runtime
from slmops.testing.tiny import save_tiny_model

TEXTS = ("where is my parcel", "the discount code 12", "Straße 😀 日本語\n\tnaïve «€»", "please refund the money for the shoes")
MESSAGES = [[{"role": "user", "content": text}] for text in TEXTS]


@pytest.fixture(scope="module")
def trimmed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trimmed to the first text and ten common tokens; the others are split into more tokens, down to bytes."""
    root = tmp_path_factory.mktemp("model")
    parent = save_tiny_model(root / "parent", layers=2)
    vocabulary = Vocabulary.of(parent, load_tokenizer(parent)(TEXTS[0])["input_ids"])
    trim_vocabulary(parent, root / "trimmed", vocabulary.first(vocabulary.smallest + 10))
    return root / "trimmed"


def side(engine: str, folder: Path) -> Side:
    runtime = open_runtime(engine, folder, threads=1)
    prompts = [ChatTemplate.load(folder).render(messages) for messages in MESSAGES]
    answers = [found.text for found in runtime.generate(prompts, Sampling(max_new_tokens=8))]
    return Side(prompts, [runtime.tokenize(prompt) for prompt in prompts], answers)


def test_the_package_for_onnx_runtime_reads_and_answers_as_the_model(trimmed: Path, tmp_path: Path) -> None:
    export_onnx(trimmed, tmp_path / "int8", "int8", max_length=128)
    parity = compare(side("torch", trimmed), side("ort-genai", tmp_path / "int8"))
    assert (parity.template_equal, parity.tokens_equal, parity.agreement) == (True, True, 1.0)


def test_the_package_for_openvino_too(trimmed: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino_genai", reason="the extra 'openvino' is not installed")
    export_openvino(trimmed, tmp_path / "int8")
    parity = compare(side("torch", trimmed), side("openvino-genai", tmp_path / "int8"))
    assert (parity.template_equal, parity.tokens_equal) == (True, True)
    assert parity.agreement >= 0.75

"""OpenVINO's continuous batching: the model's own answers, token by token, and no word to anybody about it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from slmops.data.chat import ChatTemplate
from slmops.errors import DataError, ModelError
from slmops.export.gguf import Precision
from slmops.export.openvino import export_openvino
from slmops.files import read_json
from slmops.runtimes import openvino_genai
from slmops.runtimes.base import Runtime, Sampling, open_runtime
from slmops.testing.runtimes import TEXTS
from slmops.testing.tiny import save_tiny_model

GREEDY = Sampling(max_new_tokens=8)


@pytest.fixture(scope="module")
def folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("openvino") / "tiny"
    export_openvino(tiny_model, target)
    return target


@pytest.fixture(scope="module")
def runtime(folder: Path) -> Runtime:
    return open_runtime("openvino-genai", folder, threads=1)


@pytest.fixture(scope="module")
def prompts(folder: Path) -> list[str]:
    chat = ChatTemplate.load(folder)
    return [chat.render([{"role": "user", "content": text}]) for text in TEXTS]


@pytest.mark.parametrize(("kind", "precision"), [("llama", "int8"), ("llama", "float16"), ("qwen2", "int8"), ("qwen3", "int8")])
def test_answers_are_those_of_the_float32_model(kind: str, precision: Precision, prompts: list[str], tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", kind=kind, seed=1)
    export_openvino(model, tmp_path / "exported", precision)
    runtime, reference = open_runtime("openvino-genai", tmp_path / "exported"), open_runtime("torch", model)
    for prompt in prompts:
        assert runtime.tokenize(prompt) == reference.tokenize(prompt)
        assert runtime.generate([prompt], GREEDY)[0].token_ids[:3] == reference.generate([prompt], GREEDY)[0].token_ids[:3]
    assert (runtime.info.precision, runtime.info.context_length) == (precision, 256)


def test_more_prompts_than_a_batch_come_back_in_order(runtime: Runtime, prompts: list[str]) -> None:
    many = runtime.generate(prompts * 30, Sampling(max_new_tokens=2))
    assert [answer.prompt_tokens for answer in many] == [len(runtime.tokenize(prompt)) for prompt in prompts] * 30


def test_a_stream_that_is_left_early_does_not_disturb_the_next_answer(runtime: Runtime, prompts: list[str]) -> None:
    expected = runtime.generate([prompts[1]], GREEDY)
    left = runtime.stream(prompts[0], Sampling(max_new_tokens=60))
    next(left)
    assert runtime.generate([prompts[1]], GREEDY)[0].prompt_tokens == expected[0].prompt_tokens
    left.close()
    assert runtime.generate([prompts[1]], GREEDY) == expected


def test_what_prompts_share_is_read_once_and_changes_no_answer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, kept = openvino_genai.open_runtime(folder), openvino_genai.open_runtime(folder, reuse=True)
    steps: list[str] = []
    monkeypatch.setattr(kept, "_pipeline", Counting(kept._pipeline, steps))
    prompts = ["please say the word " * 12 + text for text in TEXTS]
    assert len(plain.tokenize(prompts[0])) > 64
    sampling = Sampling(max_new_tokens=4)
    expected = [plain.generate([prompt], sampling)[0] for prompt in prompts]
    assert kept.generate(prompts, sampling) == expected
    assert steps[:3] == ["add", "step", "add"]  # the first alone, so that the others find what they share
    steps.clear()
    assert kept.generate(prompts, sampling) == expected
    assert steps[: len(prompts)] == ["add"] * len(prompts)


def test_kept_prompts_make_room_and_answers_stay_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = read_json(folder / "export.json")
    monkeypatch.setattr(openvino_genai, "memory_available_mb", lambda: 4 * 2 * facts["state_values"] * 6 * 32 / 1e6)
    tight, plain = openvino_genai.open_runtime(folder, reuse=True), openvino_genai.open_runtime(folder)
    assert tight.info.context_length == 6 * 32
    prompts = [text[-40:] * number for text in TEXTS for number in range(1, 4)] * 4
    sampling = Sampling(max_new_tokens=2)
    assert [answer.token_ids for answer in tight.generate(prompts, sampling)] == [
        plain.generate([prompt], sampling)[0].token_ids for prompt in prompts
    ]
    with pytest.raises(DataError, match="context"):
        tight.generate(["word " * 300], sampling)


class Counting:
    """A pipeline that notes the order of what it is asked for."""

    def __init__(self, inner: Any, steps: list[str]) -> None:
        self._inner, self._steps = inner, steps

    def add_request(self, *arguments: Any) -> Any:
        self._steps.append("add")
        return self._inner.add_request(*arguments)

    def step(self) -> None:
        self._steps.append("step")
        self._inner.step()


def test_sixteen_bits_on_one_thread_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    export_openvino(tiny_model, tmp_path / "exported", "float16")
    with pytest.raises(ModelError, match="with two threads or more"):
        open_runtime("openvino-genai", tmp_path / "exported", threads=1)


def test_a_folder_that_was_not_converted_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match=r"no model\.gguf"):
        open_runtime("openvino-genai", tiny_model)


def test_a_damaged_file_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes((folder / "model.gguf").read_bytes()[:200])
    (tmp_path / "export.json").write_bytes((folder / "export.json").read_bytes())
    with pytest.raises(ModelError, match="OpenVINO cannot load the model"):
        open_runtime("openvino-genai", tmp_path)


def test_its_telemetry_is_never_imported() -> None:
    code = "import slmops.runtimes.openvino_genai, sys; print([n for n in sys.modules if n.startswith('openvino_telemetry.')])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

"""An exported model through the whole server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import openai
import pytest
from server_process import serving

from slmops.data.chat import ChatTemplate
from slmops.runtimes.base import Sampling, open_runtime
from slmops.testing.tiny import save_tiny_model

ORT_SERVER = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None  # whoever imports them now fails
from pathlib import Path
from slmops.serving.server import serve
serve(Path(sys.argv[1]), port=0, threads=1)
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """The tiny model as an ONNX Runtime GenAI folder."""
    work = tmp_path_factory.mktemp("export")
    save_tiny_model(work / "model")
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-p", "fp32", "-e", "cpu"]
    places = ["-m", str(work / "model"), "-o", str(work / "tiny-shop"), "-c", str(work / "cache")]
    offline = {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    subprocess.run([*builder, *places], check=True, capture_output=True, env={**os.environ, **offline})
    return work / "tiny-shop"


def test_an_exported_model_is_served_without_a_training_framework(exported):
    messages = [{"role": "user", "content": "where is my parcel"}]
    prompt = ChatTemplate.load(exported).render(messages)
    # Sampled, because the most likely token of a random model is the one it just read.
    expected = open_runtime("ort-genai", exported, threads=1).generate([prompt], Sampling(12, temperature=2.0, seed=5))[0]
    asked = {"model": "tiny-shop", "messages": messages, "max_tokens": 12, "temperature": 2, "seed": 5}

    with serving(ORT_SERVER, exported) as (process, client, log):
        answer = client.chat.completions.create(**asked)
        chunks = list(client.chat.completions.create(**asked, stream=True))
        with pytest.raises(openai.BadRequestError, match="context holds 256"):
            client.chat.completions.create(**{**asked, "max_tokens": 256})
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert answer.choices[0].message.content == expected.text
    assert answer.usage.completion_tokens == len(expected.token_ids)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected.text
    assert len(set(expected.token_ids)) > 3
    assert log[-1] == "stopped"

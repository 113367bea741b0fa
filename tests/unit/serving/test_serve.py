"""``serve`` as a process: refusals before the model loads, and a clean stop."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from server_process import ENVIRONMENT, serving

from slmops.data.chat import ChatTemplate
from slmops.errors import MissingExtraError, ModelError, ResourceError, UsageError
from slmops.export.card import BundleCard, CardSampling
from slmops.serving.server import serve

ECHO_SERVER = """
import sys
from pathlib import Path
from slmops.registry import Entry
from slmops.runtimes.base import RUNTIMES
from slmops.serving.server import serve
RUNTIMES.builtin["ort-genai"] = Entry("echo_runtime:open_runtime")
serve(Path(sys.argv[1]), port=0)
"""


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A packaged model as far as the server looks at it itself."""
    folder = tmp_path / "bundle"
    BundleCard(
        name="shop-queues",
        task_type="classification",
        chat_template=ChatTemplate("<|im_start|>user\n{{ messages[-1]['content'] }}<|im_end|>"),
        sampling=CardSampling(max_new_tokens=500),
    ).write(folder)
    (folder / "genai_config.json").write_text("{}", encoding="utf-8")
    return folder


def test_a_taken_port_is_found_out_before_the_model_loads(bundle):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ResourceError, match=f"port {port} is taken") as caught:
            serve(bundle, port=port)  # the bundle has no model, so loading it would raise something else
    assert caught.value.where == "--port"
    assert "--port" in caught.value.fix


@pytest.mark.parametrize(("options", "flag"), [({"port": 70_000}, "--port"), ({"host": "no.such.host.invalid"}, "--host")])
def test_an_address_that_cannot_be_is_refused_by_its_flag(bundle, options, flag):
    with pytest.raises(UsageError) as caught:
        serve(bundle, **options)
    assert caught.value.where == flag


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"no genai_config\.json"):
        serve(tmp_path)
    with pytest.raises(ModelError, match="no such folder"):
        serve(tmp_path / "nowhere")


@pytest.mark.parametrize("package", ["uvicorn", "fastapi"])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, bundle, package):
    for module in ("slmops.serving.app", "slmops.serving.stopping"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}' is not installed[\s\S]*slmops\[serve\]"):
        serve(bundle)


def test_the_serving_path_imports_no_training_framework():
    code = "import sys, slmops.serving.server, slmops.serving.app; print({'torch', 'transformers', 'numpy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=ENVIRONMENT).strip() == "set()"


def test_sigterm_lets_an_answer_finish_and_exits_with_zero(bundle):
    with serving(ECHO_SERVER, bundle) as (process, client, log):
        stream = client.chat.completions.create(
            model="shop-queues", messages=[{"role": "user", "content": "private " * 20}], stream=True
        )
        next(stream)
        process.send_signal(signal.SIGTERM)
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "stop"
        assert process.wait(10) == 0
    assert log[-1] == "stopped"
    assert not any("private" in line or "Traceback" in line for line in log)


def test_an_interrupt_ends_an_idle_server(bundle):
    with serving(ECHO_SERVER, bundle) as (process, client, log):
        assert client.models.list().data[0].id == "shop-queues"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert log[-1] == "stopped"


def test_a_second_interrupt_ends_long_answers_with_an_error(bundle):
    with serving(ECHO_SERVER, bundle) as (process, client, log), ThreadPoolExecutor(2) as pool:

        def ask(stream: bool) -> None:
            messages = [{"role": "user", "content": "word " * 400}]
            list(client.chat.completions.create(model="shop-queues", messages=messages, stream=stream))

        asked = [pool.submit(ask, stream) for stream in (True, False)]
        for _ in range(2):
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
        for answer in asked:
            with pytest.raises(openai.APIError, match="the server is stopping"):
                answer.result(3)  # well before the time that a first interrupt leaves
        assert process.wait(4) == 0
    assert log[-1] == "stopped"
    assert not any("Traceback" in line for line in log)

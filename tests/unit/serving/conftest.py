"""A server over real loopback HTTP."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from echo_runtime import EchoRuntime

from slmops.data.chat import COMPACT_CHATML, ChatTemplate
from slmops.runtimes.base import Runtime
from slmops.serving.app import create_app
from slmops.serving.service import ChatService


@dataclass
class Server:
    """A running server and two ways to talk to it."""

    url: str
    runtime: Any
    service: ChatService

    @cached_property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url + "/v1", api_key="none", max_retries=0, timeout=20)

    @cached_property
    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20)

    def ask(self, text: str = "hello there", **options: Any) -> Any:
        return self.client.chat.completions.create(model="echo-1", messages=[{"role": "user", "content": text}], **options)

    def post(self, **body: Any) -> httpx.Response:
        whole = {"model": "echo-1", "messages": [{"role": "user", "content": "hello there"}], **body}
        return self.http.post("/v1/chat/completions", json=whole)


@contextlib.contextmanager
def running(runtime: Runtime, template: ChatTemplate | None = None, **options: Any) -> Iterator[Server]:
    service = ChatService(runtime, template or ChatTemplate(COMPACT_CHATML), "echo-1", **options)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(create_app(service), log_level="critical", log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{listener.getsockname()[1]}", runtime, service)
    finally:
        server.should_exit = True
        thread.join()
        service.close()


Start = Callable[..., Server]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a server with an engine and a template of one's own; it stops with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda runtime=None, template=None, **options: stack.enter_context(
            running(runtime or EchoRuntime(), template, **options)
        )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server shared by a module's tests."""
    with running(EchoRuntime()) as server:
        yield server


@pytest.fixture
def echo() -> type[EchoRuntime]:
    return EchoRuntime


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether something becomes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


@pytest.fixture
def eventually() -> Callable[..., bool]:
    return wait_until

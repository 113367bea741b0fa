"""A teacher's endpoint on loopback that fails as told: for tests of whatever asks endpoints.

Real HTTP, the chat completions of OpenAI and the messages of Anthropic, with or without streaming. Which fault a request
meets depends on the seed, its messages and how often they came, not on the order or the time.

    with FaultServer(Faults(rate_limit=0.1, html=0.05), seed=3) as server:
        client = OpenAI(base_url=server.url, api_key="none")
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from slmops.errors import ResourceError
from slmops.testing.wire import anthropic_body, error_body, openai_body, send, stream

Answer = Callable[[Sequence[Mapping[str, str]]], str]

_HTML = "<!DOCTYPE html><html><head><title>502</title></head><body><h1>Bad gateway</h1></body></html>"


@dataclass(frozen=True)
class Faults:
    """Share of the requests that meet each fault; the rest is answered.

    Args:
        rate_limit: 429 with ``Retry-After``.
        server_error: 500.
        unavailable: 503.
        timeout: Nothing for ``hang_s`` seconds, then the connection is closed.
        reset: The connection is reset in the middle of the body or the stream.
        html: A web page with status 200.
        bad_json: Status 200 and half of a JSON object.
        empty: A completion without text.
        truncated: A completion cut in half, with the finish reason ``length``.
        refused: 400.
    """

    rate_limit: float = 0.0
    server_error: float = 0.0
    unavailable: float = 0.0
    timeout: float = 0.0
    reset: float = 0.0
    html: float = 0.0
    bad_json: float = 0.0
    empty: float = 0.0
    truncated: float = 0.0
    refused: float = 0.0

    def choose(self, position: float) -> str | None:
        """The fault at a position from 0 to 1; ``None`` for none."""
        end = 0.0
        for field in fields(self):
            end += getattr(self, field.name)
            if position < end:
                return field.name
        return None


class FaultServer:
    """A server in a thread of its own; start and stop it with ``with``.

    Args:
        faults: How often what goes wrong.
        seed: Other seeds give other faults.
        answer: What the model says to messages; by default ``echo:`` and the last turn.
        latency_s: How long an answer takes.
        hang_s: How long a timeout lasts.
        retry_after_s: What 429 asks for, exactly in ``retry-after-ms`` and in whole seconds in ``Retry-After``.
        key: API key that is wanted; ``None`` takes any.
        port: 0 takes a free one.

    Attributes:
        requests: How many came.
        paid: How many would be billed: completions, usable or not, with those that were lost on the way.
        met: How often each fault was met.
        early: Requests that came before a ``Retry-After`` was over, though sent after it had arrived.
        most_under_way: Most requests at once.
        bodies: What was asked, the newest last.
        received: Every byte that came.
    """

    def __init__(
        self,
        faults: Faults | None = None,
        *,
        seed: int = 0,
        answer: Answer | None = None,
        latency_s: float = 0.0,
        hang_s: float = 5.0,
        retry_after_s: float = 0.02,
        key: str | None = None,
        port: int = 0,
    ) -> None:
        self._faults, self._seed, self._answer = faults or Faults(), seed, answer or _echo
        self._latency_s, self._hang_s, self._retry_after_s, self._key, self._port = latency_s, hang_s, retry_after_s, key, port
        self.requests = self.paid = self.early = self.most_under_way = self.under_way = 0
        self.met: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.received = b""
        self._times: Counter[str] = Counter()
        self._quiet = (0.0, 0.0)
        self._up = threading.Event()
        self._taken: OSError | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    @property
    def url(self) -> str:
        """Base URL for OpenAI clients; those of Anthropic want it without ``/v1``."""
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> FaultServer:
        self._thread.start()
        self._up.wait()
        if self._taken is not None:
            raise ResourceError(f"port {self._port} cannot be used: {self._taken}", fix="choose another; 0 takes a free one")
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        except OSError as error:
            self._taken = error
            self._up.set()
            return
        self._port = server.sockets[0].getsockname()[1]
        self._up.set()
        await self._stop.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; whether the connection stays open."""
        first = await reader.readuntil(b"\r\n\r\n")
        head = first.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.received += first + body
        method, path, _ = head[0].split(" ", 2)
        if method != "POST" or path not in ("/v1/chat/completions", "/v1/messages"):
            return await send(writer, 404, error_body("no such address"))
        given = headers.get("authorization", "").removeprefix("Bearer ") or headers.get("x-api-key", "")
        if self._key is not None and given != self._key:
            return await send(writer, 401, error_body(f"Incorrect API key provided: {given}"))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await self._completion(writer, json.loads(body), path == "/v1/messages")
        finally:
            self.under_way -= 1

    async def _completion(self, writer: asyncio.StreamWriter, body: dict[str, Any], anthropic: bool) -> bool:
        self.requests += 1
        self.bodies.append(body)
        begin, end = self._quiet
        self.early += begin < time.monotonic() < end
        fault = self._fault(body["messages"])
        if fault:
            self.met[fault] += 1
        await asyncio.sleep(self._latency_s)
        if fault == "timeout":
            await asyncio.sleep(self._hang_s)
            return False
        if fault == "rate_limit":
            return await self._limit(writer)
        if fault in ("server_error", "unavailable", "refused"):
            status = {"server_error": 500, "unavailable": 503, "refused": 400}[fault]
            return await send(writer, status, error_body(fault))
        if fault == "html":
            return await send(writer, 200, _HTML, kind="text/html")
        text = "" if fault == "empty" else self._answer(body["messages"])
        if fault == "truncated":
            text = text[: len(text) // 2]
        self.paid += 1
        make = anthropic_body if anthropic else openai_body
        content = make(body, text, "length" if fault == "truncated" else "stop")
        if body.get("stream"):
            return await stream(writer, content, broken=fault in ("reset", "bad_json"))
        if fault == "bad_json":
            return await send(writer, 200, content[: len(content) // 2])
        return await send(writer, 200, content, cut=fault == "reset")

    async def _limit(self, writer: asyncio.StreamWriter) -> bool:
        wait = self._retry_after_s
        stays = await send(
            writer,
            429,
            error_body("Rate limit reached"),
            more={"Retry-After": str(-int(-wait // 1)), "retry-after-ms": f"{wait * 1000:.0f}"},
        )
        now = time.monotonic()
        self._quiet = (now + wait / 2, now + wait * 0.9)  # what was already on its way is not early
        return stays

    def _fault(self, messages: Sequence[Mapping[str, str]]) -> str | None:
        text = json.dumps(messages, sort_keys=True)
        self._times[text] += 1
        name = f"{self._seed} {self._times[text]} {text}"
        return self._faults.choose(random.Random(hashlib.sha256(name.encode()).digest()).random())


def _echo(messages: Sequence[Mapping[str, str]]) -> str:
    return f"echo: {messages[-1]['content']}"

"""What OpenAI's and Anthropic's endpoints put on the wire: bodies, server-sent events, and connections that break."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from slmops.teachers.replies import estimate_text_tokens, estimate_tokens

_RESET = struct.pack("ii", 1, 0)


def error_body(message: str) -> str:
    """An error as both write it."""
    return json.dumps({"error": {"message": message, "type": "error", "code": None}})


def openai_body(body: Mapping[str, Any], text: str, reason: str) -> str:
    """A chat completion to a request; ``reason`` is ``stop`` or ``length``."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    if body.get("logprobs"):
        top = [{"token": text, "logprob": -0.25}][: body.get("top_logprobs", 0)]
        choice["logprobs"] = {"content": [{"token": text, "logprob": -0.25, "top_logprobs": top}]}
    prompt, completion = estimate_tokens(body["messages"]), estimate_text_tokens(text)
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    facts = {"id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": body["model"]}
    return json.dumps({**facts, "choices": [choice], "usage": usage})


def anthropic_body(body: Mapping[str, Any], text: str, reason: str) -> str:
    """A message to a request; ``reason`` as for :func:`openai_body`."""
    facts = {"id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "stop_sequence": None}
    usage = {"input_tokens": estimate_tokens(body["messages"]), "output_tokens": estimate_text_tokens(text)}
    stop = {"stop": "end_turn", "length": "max_tokens"}[reason]
    return json.dumps({**facts, "content": [{"type": "text", "text": text}], "stop_reason": stop, "usage": usage})


async def send(
    writer: asyncio.StreamWriter,
    status: int,
    body: str,
    *,
    kind: str = "application/json",
    more: Mapping[str, str] | None = None,
    cut: bool = False,
) -> bool:
    """Write a response; with ``cut``, half of its body and then a reset. Whether the connection stays open."""
    content = body.encode()
    headers = {"Content-Type": kind, "Content-Length": str(len(content)), **(more or {})}
    head = f"HTTP/1.1 {status} -\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
    writer.write(head.encode() + (content[: len(content) // 2] if cut else content))
    await writer.drain()
    return not (cut and _reset(writer))


async def stream(writer: asyncio.StreamWriter, body: str, *, broken: bool) -> bool:
    """Write a completion, or a message, as server-sent events; ``broken``: up to the middle, then a reset."""
    whole = json.loads(body)
    events = list(_message_events(whole) if whole.get("type") == "message" else _chunk_events(whole))
    middle = next(place for place, event in enumerate(events, 1) if "delta" in event)
    writer.write(b"HTTP/1.1 200 -\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
    for event in events[:middle] if broken else events:
        writer.write(f"{event}\n\n".encode())
        await writer.drain()
    if broken:
        _reset(writer)
    return False


def _chunk_events(whole: Mapping[str, Any]) -> Iterator[str]:
    """A chat completion in two pieces, as OpenAI streams it."""
    choice, facts = whole["choices"][0], {name: whole[name] for name in ("id", "created", "model")}
    facts["object"] = "chat.completion.chunk"
    text = choice["message"]["content"]
    half = len(text) // 2
    pieces: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": text[:half]}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"content": text[half:]}, "finish_reason": choice["finish_reason"]}]},
        {"choices": [], "usage": whole["usage"]},
    ]
    yield from (f"data: {json.dumps({**facts, **piece})}" for piece in pieces)
    yield "data: [DONE]"


def _message_events(whole: Mapping[str, Any]) -> Iterator[str]:
    """A message in two pieces, as Anthropic streams it; the tokens of the answer are known at its end."""
    text, usage = whole["content"][0]["text"], whole["usage"]
    half = len(text) // 2
    begun = {**whole, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    end = {"stop_reason": whole["stop_reason"], "stop_sequence": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": part}}
            for part in (text[:half], text[half:])
        ),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": usage["output_tokens"]}},
        {"type": "message_stop"},
    ]
    yield from (f"event: {event['type']}\ndata: {json.dumps(event)}" for event in events)


def _reset(writer: asyncio.StreamWriter) -> bool:
    """Close with RST instead of FIN; always true."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
    return True

"""Streams, queueing and clients that leave, over real HTTP."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest


def test_a_stream_is_role_then_text_then_finish_then_done(server):
    body = {"model": "echo-1", "messages": [{"role": "user", "content": "one two three"}], "stream": True}
    with server.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        raw = reply.read()

    frames = raw.split(b"\n\n")
    assert frames[-2:] == [b"data: [DONE]", b""]
    assert all(frame.startswith(b"data: {") for frame in frames[:-2])
    chunks = [json.loads(frame.removeprefix(b"data: ")) for frame in frames[:-2]]
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "one"},
        {"content": " two"},
        {"content": " three"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, None, "stop"]
    assert len({(chunk["id"], chunk["created"], chunk["model"], chunk["object"]) for chunk in chunks}) == 1
    assert chunks[0]["object"] == "chat.completion.chunk"
    assert all("usage" not in chunk for chunk in chunks)


def test_the_official_client_reads_the_stream_and_its_usage(server):
    chunks = list(server.ask("one two three", stream=True, max_tokens=2, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "one two"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 2
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_pieces_arrive_while_the_engine_still_works(start, echo):
    server = start(echo(seconds_per_token=0.05))
    times = [time.monotonic() for _ in server.ask("a b c d e f", stream=True)]
    assert times[-1] - times[0] > 0.15


def test_a_failure_in_mid_stream_ends_it_with_an_error_frame(start, echo):
    server = start(echo(fail_after=2))
    with pytest.raises(openai.APIError, match="on fire"):
        list(server.ask("one two three", stream=True))
    raw = server.post(stream=True, messages=[{"role": "user", "content": "one two three"}]).content
    last = raw.split(b"\n\n")[-2]
    assert json.loads(last.removeprefix(b"data: "))["error"]["type"] == "server_error"
    assert b"[DONE]" not in raw


def test_eight_clients_at_once_get_their_own_answers(start, echo):
    server = start(echo(seconds_per_token=0.005))

    def ask(number: int) -> tuple[str, str]:
        text = " ".join([f"client-{number}"] * (number + 3))
        if number % 2:
            return text, "".join(chunk.choices[0].delta.content or "" for chunk in server.ask(text, stream=True))
        return text, server.ask(text).choices[0].message.content

    with ThreadPoolExecutor(8) as pool:
        for text, answer in pool.map(ask, list(range(8)) * 3):
            assert answer == text


def test_health_answers_while_the_engine_works_and_a_client_reads_slowly(start, echo):
    server = start(echo(seconds_per_token=0.02, context_length=4096))
    body = {"model": "echo-1", "messages": [{"role": "user", "content": "w" * 5_000_000 + " word" * 40}], "stream": True}
    with server.http.stream("POST", "/v1/chat/completions", json=body) as reply:
        assert reply.status_code == 200  # and not a byte of the body is read
        begun = time.monotonic()
        assert server.http.get("/health").json()["status"] == "ok"
        assert time.monotonic() - begun < 0.5
        assert server.ask("next, please").choices[0].message.content == "next, please"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_stops_the_generation(start, echo, eventually, stream):
    server = start(echo(seconds_per_token=0.02, context_length=4096))
    connection = send(server, "word " * 1000, stream=stream)
    assert eventually(lambda: server.runtime.spoken > 2)
    connection.close()
    assert eventually(lambda: not server.runtime.busy.locked())
    assert server.runtime.spoken < 200
    assert server.ask("still there?").choices[0].message.content == "still there?"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_while_it_waits_is_never_answered(start, echo, eventually, stream):
    server = start(echo(seconds_per_token=0.02))
    running = send(server, "word " * 30)
    assert eventually(lambda: server.runtime.spoken > 0)
    waiting = send(server, "gone before its turn", stream=stream)
    time.sleep(0.1)
    waiting.close()
    assert server.ask("after it").choices[0].message.content == "after it"
    assert not any("gone before its turn" in prompt for prompt in server.runtime.prompts)
    running.close()


def test_a_full_queue_refuses_with_a_time_to_retry(start, echo, eventually):
    server = start(echo(seconds_per_token=0.05, context_length=4096), max_waiting=1)
    clients = [send(server, "word " * 200)]
    assert eventually(lambda: server.runtime.busy.locked())
    clients.append(send(server, "waits"))
    time.sleep(0.1)
    with pytest.raises(openai.RateLimitError) as caught:
        server.ask("one too many")
    assert caught.value.response.headers["retry-after"] == "1"
    for client in clients:
        client.close()


def send(server, text: str, stream: bool = False) -> socket.socket:
    """A request on a bare socket, which can be dropped at any moment."""
    port = int(server.url.rpartition(":")[2])
    body = json.dumps({"model": "echo-1", "messages": [{"role": "user", "content": text}], "stream": stream}).encode()
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: " + str(len(body)).encode() + b"\r\n\r\n" + body
    )
    return connection

"""One face over OpenAI-compatible endpoints and Claude, and what each fault is taken for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from typing import Any

import pytest

from slmops.errors import MissingExtraError
from slmops.teachers.api import ApiTeacher, OpenAIClient, _json, openai_reply
from slmops.teachers.catalogue import ApiOptions
from slmops.teachers.replies import AskParams, Fault, Reply
from slmops.teachers.verdicts import clean, fault_of_status, seconds_to_wait
from slmops.testing import faults
from slmops.testing.faults import Faults, FaultServer

OVERLOADED = b'event: error\ndata: {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}\n\n'
ASKED = [{"role": "system", "content": "be short"}, {"role": "user", "content": "where is it"}]


def ask(
    server: FaultServer, messages: Sequence[Mapping[str, str]] = ASKED, params: AskParams | None = None, **options: Any
) -> Reply:
    async def once() -> Reply:
        client = ApiTeacher.find("m", ApiOptions(**{"base_url": server.url, "timeout_s": 5, **options})).connect()
        try:
            return await client.ask(messages, params or AskParams())
        finally:
            await client.close()

    return asyncio.run(once())


def claude(server: FaultServer, params: AskParams | None = None, **options: Any) -> Reply:
    pytest.importorskip("anthropic", reason="the extra 'api' is not installed")
    address = server.url.removesuffix("/v1")
    return ask(server, params=params, **{"protocol": "anthropic", "base_url": address, **options})


def test_an_answer_with_its_tokens() -> None:
    with FaultServer() as server:
        reply = ask(server, params=AskParams(max_new_tokens=9, temperature=0.5, seed=3, stop=("\n",), top_p=0.9))
    assert reply == Reply("echo: where is it", "stop", 13, 4, None, "m")
    sent = server.bodies[0]
    assert sent["messages"] == ASKED
    assert [sent[name] for name in ("max_tokens", "temperature", "seed", "stop", "top_p")] == [9, 0.5, 3, ["\n"], 0.9]


def test_log_probabilities_stay_with_the_answer() -> None:
    with FaultServer() as server:
        reply = ask(server, params=AskParams(top_logprobs=1))
    (token,) = reply.logprobs or ()
    assert token == {"token": "echo: where is it", "logprob": -0.25, "top": [["echo: where is it", -0.25]]}
    assert Reply.from_dict(json.loads(json.dumps(reply.as_dict()))) == reply


def test_a_streamed_answer_is_the_same_answer() -> None:
    with FaultServer() as server:
        assert ask(server, stream=True) == ask(server)
        assert [body.get("stream") for body in server.bodies] == [True, None]


@pytest.mark.parametrize(
    ("fault", "kind", "overload", "lost"),
    [
        ("rate_limit", "rate limit", True, False),
        ("server_error", "server error 500", False, False),
        ("unavailable", "server error 503", True, False),
        ("timeout", "timeout", True, True),
        ("reset", "connection lost", False, True),
        ("html", "HTML instead of JSON", False, False),
        ("bad_json", "not JSON", False, True),
    ],
)
def test_what_a_fault_is_taken_for(fault: str, kind: str, overload: bool, lost: bool) -> None:
    with FaultServer(Faults(**{fault: 1.0}), hang_s=2, retry_after_s=0.25) as server:
        with pytest.raises(Fault) as caught:
            ask(server, timeout_s=0.5 if fault == "timeout" else 5)
        assert server.requests == 1  # the package's own retries are off
    found = caught.value
    assert (found.kind, found.action, found.overload, found.lost) == (kind, "retry", overload, lost)
    assert found.retry_after == (0.25 if fault == "rate_limit" else None)


def test_a_stream_that_breaks_in_the_middle_is_no_answer() -> None:
    with FaultServer(Faults(reset=1.0)) as server:
        with pytest.raises(Fault, match="connection lost") as caught:
            ask(server, stream=True)
    assert caught.value.lost


def test_models_that_want_the_newer_name_of_the_limit_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Mapping[str, Any]] = []

    async def picky(self: OpenAIClient, body: Mapping[str, Any]) -> Any:
        sent.append(body)
        if "max_tokens" in body:
            raise Fault("refused with 400", "use 'max_completion_tokens' instead", action="reject")
        return {"choices": [{"message": {"content": "yes"}}]}

    monkeypatch.setattr(OpenAIClient, "_whole", picky)
    client = ApiTeacher.find("m", ApiOptions(base_url="http://127.0.0.1:9/v1")).connect()
    assert [asyncio.run(client.ask(ASKED, AskParams(max_new_tokens=7))).text for _ in range(2)] == ["yes", "yes"]
    assert [body.get("max_completion_tokens") for body in sent] == [None, 7, 7]


def test_nobody_at_the_address_is_no_fault_of_the_row() -> None:
    with FaultServer() as server:
        pass
    with pytest.raises(Fault, match="no connection") as caught:
        ask(server)
    assert (caught.value.overload, caught.value.lost) == (True, False)


def test_claude_answers_through_its_own_protocol() -> None:
    with FaultServer() as server:
        reply = claude(server, AskParams(max_new_tokens=9, stop=("\n",)))
    assert reply == Reply("echo: where is it", "stop", 7, 4, None, "m")
    sent = server.bodies[0]
    assert (sent["system"], sent["messages"]) == ("be short", ASKED[1:])
    assert (sent["max_tokens"], sent["stop_sequences"]) == (9, ["\n"])


@pytest.mark.parametrize(
    ("fault", "kind"), [("rate_limit", "rate limit"), ("reset", "connection lost"), ("html", "HTML instead of JSON")]
)
def test_claudes_faults_are_the_same_faults(fault: str, kind: str) -> None:
    with FaultServer(Faults(**{fault: 1.0})) as server:
        with pytest.raises(Fault) as caught:
            claude(server)
        assert server.requests == 1
    assert caught.value.kind == kind


def test_claude_says_that_an_answer_was_cut() -> None:
    with FaultServer(Faults(truncated=1.0)) as server:
        assert claude(server).finish_reason == "length"


def test_claude_is_not_asked_for_more_than_its_hottest() -> None:
    with FaultServer() as server, pytest.raises(Fault, match="temperatures end at 1"):
        claude(server, AskParams(temperature=1.5))
    assert server.requests == 0


def test_claude_streams_the_same_answer() -> None:
    with FaultServer() as server:
        assert claude(server, stream=True) == claude(server)
        assert [body.get("stream") for body in server.bodies] == [True, None]
    with FaultServer(Faults(truncated=1.0)) as server:
        assert claude(server, stream=True).finish_reason == "length"


@pytest.mark.parametrize("fault", ["reset", "bad_json"])
def test_a_stream_of_claude_that_breaks_in_the_middle_is_no_answer(fault: str) -> None:
    with FaultServer(Faults(**{fault: 1.0})) as server:
        with pytest.raises(Fault, match="connection lost") as caught:
            claude(server, stream=True)
        assert (server.requests, caught.value.lost, caught.value.action) == (1, True, "retry")


@pytest.mark.parametrize(("end", "kind"), [(b"", "connection lost"), (OVERLOADED, "server error")])
def test_a_stream_of_claude_that_ends_early_or_with_an_error_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, end: bytes, kind: str
) -> None:
    async def early(writer: asyncio.StreamWriter, body: str, *, broken: bool) -> bool:
        piece = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "half of"}}
        writer.write(b"HTTP/1.1 200 -\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        writer.write(b"event: content_block_delta\ndata: " + json.dumps(piece).encode() + b"\n\n" + end)
        await writer.drain()
        return False

    monkeypatch.setattr(faults, "stream", early)
    with FaultServer() as server, pytest.raises(Fault) as caught:
        claude(server, stream=True)
    assert (caught.value.kind, caught.value.action, caught.value.lost) == (kind, "retry", True)


@pytest.mark.parametrize("call", [ask, claude])
def test_a_web_page_is_no_stream(call: Callable[..., Reply]) -> None:
    with FaultServer(Faults(html=1.0)) as server, pytest.raises(Fault, match="HTML instead of JSON") as caught:
        call(server, stream=True)
    assert not caught.value.lost


@pytest.mark.parametrize("call", [ask, claude])
def test_a_rate_limit_before_a_stream_is_the_same_rate_limit(call: Callable[..., Reply]) -> None:
    with FaultServer(Faults(rate_limit=1.0), retry_after_s=0.25) as server, pytest.raises(Fault, match="rate limit") as caught:
        call(server, stream=True)
    assert caught.value.retry_after == 0.25


@pytest.mark.parametrize(("package", "protocol"), [("openai", "openai"), ("anthropic", "anthropic")])
def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, package: str, protocol: str) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    options = ApiOptions(base_url="http://127.0.0.1:9", protocol=protocol)  # type: ignore[arg-type]
    with pytest.raises(MissingExtraError, match=rf"'{package}' is not installed\n.*slmops\[api\]"):
        ApiTeacher.find("m", options).connect()


# What is read from bodies and headers


@pytest.mark.parametrize(
    ("status", "body", "action", "kind"),
    [
        (400, '{"error": {"message": "too long"}}', "reject", "refused with 400"),
        (401, '{"error": {"message": "Incorrect API key provided: sk-abcdef123456"}}', "stop", "the API key is refused"),
        (402, '{"error": {"message": "Insufficient Balance"}}', "stop", "the account has no credit"),
        (403, "", "stop", "access is denied"),
        (404, '{"detail": "Not Found"}', "stop", "no such model or address"),
        (429, '{"error": {"code": "insufficient_quota", "message": "You exceeded"}}', "stop", "the account has no credit"),
        (429, "slow down", "retry", "rate limit"),
        (529, '{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}', "retry", "server error 529"),
        (302, "<html>", "stop", "the address moved"),
    ],
)
def test_statuses(status: int, body: str, action: str, kind: str) -> None:
    fault = fault_of_status(status, {}, body)
    assert (fault.action, fault.kind) == (action, kind)
    assert "sk-abc" not in str(fault)
    assert action != "stop" or fault.fix


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "2", "retry-after-ms": "150"}, 0.15),
        ({"retry-after": "soon"}, None),
        ({"retry-after": formatdate(0, usegmt=True)}, 0.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert seconds_to_wait(headers) == seconds


def test_no_key_is_repeated() -> None:
    assert (
        clean("header was\n Authorization: Bearer abc.def and sk-proj-1234567890") == "header was Authorization: Bearer *** and ***"
    )
    assert len(clean("x" * 5000)) == 200


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"[]",
        b'"x"',
        b'{"choices": []}',
        b'{"choices": [{"message": null}]}',
        b"null",
        b'{"choices": [{"message": {"content": "x"}}], "usage": 3}',
    ],
)
def test_json_that_is_no_completion_is_a_fault(body: bytes) -> None:
    with pytest.raises(Fault, match="not a chat completion"):
        openai_reply(_json(body), ASKED, "m")


def test_an_error_with_status_200_is_an_error() -> None:
    with pytest.raises(Fault, match="rate limit: slow"):
        _json(b'{"error": {"code": 429, "message": "slow"}}')


def test_what_a_lenient_endpoint_leaves_out_is_estimated() -> None:
    value = {"choices": [{"message": {"content": [{"type": "text", "text": "over there, I think"}]}}]}
    assert openai_reply(value, ASKED, "m") == Reply("over there, I think", "stop", 13, 5, None, "m")


def test_a_refusal_is_no_answer() -> None:
    value = {"choices": [{"message": {"content": None, "refusal": "I cannot"}, "finish_reason": "stop"}]}
    reply = openai_reply(value, ASKED, "m")
    assert (reply.text, reply.finish_reason) == ("I cannot", "content_filter")

"""The scripted server: faults as told, the same with the same seed, and a count of what would be billed."""

from __future__ import annotations

import time

import httpx
import pytest

from slmops.errors import ResourceError
from slmops.testing.faults import Faults, FaultServer

CLIENT = httpx.Client(timeout=5, trust_env=False)  # making one takes longer than a hundred requests


def post(server: FaultServer, text: str) -> httpx.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return CLIENT.post(f"{server.url}/chat/completions", json=body)


def outcomes(server: FaultServer, count: int = 60) -> list[str]:
    found = []
    for number in range(count):
        try:
            response = post(server, f"q{number}")
            found.append(f"{response.status_code} {response.headers['content-type']} {len(response.text)}")
        except httpx.TransportError as error:
            found.append(type(error).__name__)
    return found


def test_without_faults_it_answers() -> None:
    with FaultServer(answer=lambda messages: messages[-1]["content"].upper()) as server:
        body = post(server, "hello").json()
    assert body["choices"][0]["message"]["content"] == "HELLO"
    assert body["usage"]["completion_tokens"] == 1
    assert (server.requests, server.paid, dict(server.met)) == (1, 1, {})


def test_the_same_seed_gives_the_same_faults_in_about_the_share() -> None:
    faults = Faults(server_error=0.2, html=0.2, reset=0.1)
    with FaultServer(faults, seed=5) as one, FaultServer(faults, seed=5) as same, FaultServer(faults, seed=6) as other:
        first = outcomes(one)
        assert first == outcomes(same)
        assert first != outcomes(other)
        assert 15 < sum(one.met.values()) < 45
        assert one.met == same.met


def test_a_fault_passes_with_repetition() -> None:
    with FaultServer(Faults(server_error=0.5), seed=1) as server:
        assert {post(server, "again").status_code for _ in range(20)} == {200, 500}


def test_what_would_be_billed_is_counted() -> None:
    for fault, paid in {
        "empty": 1,
        "truncated": 1,
        "reset": 1,
        "bad_json": 1,
        "html": 0,
        "rate_limit": 0,
        "server_error": 0,
    }.items():
        with FaultServer(Faults(**{fault: 1.0})) as server:
            outcomes(server, 1)
            assert (fault, server.paid, server.met[fault]) == (fault, paid, 1)


def test_a_rate_limit_says_when_to_come_back_and_notices_who_does_not_wait() -> None:
    with FaultServer(Faults(rate_limit=1.0), retry_after_s=1.5) as server:
        response = post(server, "a")
        assert (response.status_code, response.headers["retry-after"], response.headers["retry-after-ms"]) == (429, "2", "1500")
        time.sleep(0.9)
        post(server, "a")
        assert server.early == 1


def test_a_wrong_key_and_a_wrong_address_are_refused() -> None:
    with FaultServer(key="k") as server:
        assert post(server, "a").status_code == 401
        assert CLIENT.get(f"{server.url}/models").status_code == 404
        assert server.paid == 0


def test_a_fault_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError):
        Faults(earthquake=1.0)  # type: ignore[call-arg]


def test_a_taken_port_is_an_error_and_no_wait_for_ever() -> None:
    with FaultServer() as server:
        port = int(server.url.rpartition(":")[2].removesuffix("/v1"))
        with pytest.raises(ResourceError, match=f"port {port} cannot be used"):
            FaultServer(port=port).__enter__()

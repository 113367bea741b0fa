"""Many requests over a bad line: every row ends answered or with a reason, and nothing is paid twice."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from slmops.errors import ConfigError, TeacherError
from slmops.files import canonical
from slmops.teachers.api import ApiTeacher
from slmops.teachers.base import Request
from slmops.teachers.cache import RequestCache
from slmops.teachers.catalogue import ApiOptions
from slmops.teachers.replies import AskParams
from slmops.teachers.requests import Asked, RequestOptions, ask_all
from slmops.testing.faults import Faults, FaultServer

QUICK: dict[str, Any] = {"backoff_s": 0.002, "max_backoff_s": 0.02, "max_concurrency": 8}
Ask = Callable[..., Asked]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    def run(server: FaultServer, rows: int | Sequence[Request] = 40, file: str = "c.sqlite", **options: Any) -> Asked:
        with RequestCache(tmp_path / file) as cache:
            requests = questions(rows) if isinstance(rows, int) else rows
            return ask_all(teacher(server), requests, cache, RequestOptions(**{**QUICK, **options}))

    return run


def questions(count: int, **params: Any) -> list[Request]:
    turns = [[{"role": "user", "content": f"question {number}"}] for number in range(count)]
    return [Request(f"row-{number}", messages, AskParams(**params)) for number, messages in enumerate(turns)]


def teacher(server: FaultServer, **options: Any) -> ApiTeacher:
    prices = {"price_input": 1.0, "price_output": 2.0}
    return ApiTeacher.find("test-model", ApiOptions(**{"base_url": server.url, "timeout_s": 1, **prices, **options}))


def texts(asked: Asked) -> list[str]:
    return [outcome.reply.text if outcome.reply else f"({outcome.reason})" for outcome in asked.outcomes]


def test_answers_come_in_the_order_of_the_questions_with_their_ids(ask: Ask) -> None:
    with FaultServer(latency_s=0.002) as server:
        asked = ask(server)
    assert texts(asked) == [f"echo: question {number}" for number in range(40)]
    assert [outcome.id for outcome in asked.outcomes] == [f"row-{number}" for number in range(40)]
    assert (server.paid, asked.stopped, asked.faults) == (40, None, {})


def test_what_was_answered_is_not_asked_again(ask: Ask) -> None:
    with FaultServer() as server:
        first, second = ask(server), ask(server)
        assert texts(first) == texts(second)
        assert server.requests == 40
        assert second.spent == first.spent
        assert first.spent.calls == 40


def test_equal_questions_are_asked_once_and_draws_of_their_own(ask: Ask) -> None:
    one, again, other_draw = (Request(f"row-{draw}", questions(1)[0].messages, AskParams(draw=draw // 2)) for draw in range(3))
    with FaultServer() as server:
        asked = ask(server, [one, again, other_draw])
    assert texts(asked) == ["echo: question 0"] * 3
    assert server.requests == 2


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
def test_a_stream_that_breaks_in_the_middle_is_asked_for_again(tmp_path: Path, protocol: str) -> None:
    pytest.importorskip(protocol, reason="the extra 'api' is not installed")
    with FaultServer(Faults(reset=0.3), seed=1) as server, RequestCache(tmp_path / "c.sqlite") as cache:
        address = server.url if protocol == "openai" else server.url.removesuffix("/v1")
        asked = ask_all(
            teacher(server, protocol=protocol, base_url=address, stream=True), questions(40), cache, RequestOptions(**QUICK)
        )
    assert texts(asked) == [f"echo: question {number}" for number in range(40)]
    assert asked.faults == {"connection lost": server.met["reset"]}
    assert server.paid == 40 + server.met["reset"] > 40


@pytest.mark.parametrize("fault", ["rate_limit", "server_error", "unavailable", "reset", "html", "bad_json"])
def test_a_passing_fault_is_outlived(ask: Ask, fault: str) -> None:
    with FaultServer(Faults(**{fault: 0.3}), seed=1) as server:
        asked = ask(server)
    assert texts(asked) == [f"echo: question {number}" for number in range(40)]
    assert sum(asked.faults.values()) == server.met[fault] > 5
    assert len(asked.faults) == 1


def test_an_empty_answer_is_asked_again_twice(ask: Ask) -> None:
    with FaultServer(Faults(empty=0.4), seed=1) as server:
        asked = ask(server)
    empty = texts(asked).count("(empty answer: 3 times)")
    assert 0 < empty < 10
    assert sum(text.startswith("echo: ") for text in texts(asked)) == 40 - empty
    assert asked.faults == {"empty answer": server.met["empty"]}
    assert asked.spent.calls == server.paid


def test_a_timeout_is_outlived(ask: Ask) -> None:
    with FaultServer(Faults(timeout=0.2), seed=1, hang_s=3) as server:
        asked = ask(server, 15)
    assert texts(asked) == [f"echo: question {number}" for number in range(15)]
    assert asked.faults == {"timeout": server.met["timeout"]}


def test_a_cut_answer_gets_more_room_and_in_the_end_a_reason(ask: Ask) -> None:
    with FaultServer(Faults(truncated=0.5), seed=2) as server:
        asked = ask(server, questions(20, max_new_tokens=8))
        asked_again = ask(server, questions(20, max_new_tokens=8))
    rooms = {body["max_tokens"] for body in server.bodies}
    assert rooms == {8, 16, 32}
    rejected = [outcome for outcome in asked.outcomes if outcome.reason]
    assert 0 < len(rejected) < 8
    assert {outcome.reason for outcome in rejected} == {"truncated: the answer does not end within 32 tokens"}
    assert texts(asked_again) == texts(asked)
    assert asked.spent.calls == server.paid == asked_again.spent.calls


def test_retry_after_is_waited_for_by_all(ask: Ask) -> None:
    with FaultServer(Faults(rate_limit=0.2), seed=4, retry_after_s=0.15, latency_s=0.002) as server:
        asked = ask(server, 30)
    assert server.met["rate_limit"] > 3
    assert server.early == 0
    assert all(outcome.reply for outcome in asked.outcomes)


def test_a_retry_after_beyond_patience_stops_in_good_order(ask: Ask) -> None:
    with FaultServer(Faults(rate_limit=1.0), retry_after_s=3600) as server:
        asked = ask(server, 5)
        assert asked.stopped == "the endpoint wants to be left alone for 1 h 00 min"
        assert texts(asked) == ["(None)"] * 5
        assert server.requests <= 5


def test_an_endpoint_that_fails_for_ever_is_given_up_row_by_row(ask: Ask) -> None:
    with FaultServer(Faults(server_error=1.0)) as server:
        asked = ask(server, 3, max_attempts=4)
        assert texts(asked) == ["(no answer in 4 attempts: server error 500: server_error)"] * 3
        assert server.requests == 12
        server._faults = Faults()
        assert texts(ask(server, 3)) == [f"echo: question {number}" for number in range(3)]  # another run tries again


def test_no_answer_for_too_long_stops_the_run(ask: Ask) -> None:
    with FaultServer(Faults(unavailable=1.0)) as server:
        with pytest.raises(TeacherError, match=r"no answer for 0 s; the last attempt: server error 503") as caught:
            ask(server, 20, patience_s=0.2)
    assert "the same command continues" in str(caught.value)


def test_a_refused_key_stops_at_once_and_is_not_repeated_in_the_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_API_KEY", "geheim-1234")
    with FaultServer(key="right") as server, RequestCache(tmp_path / "c.sqlite") as cache:
        with pytest.raises(TeacherError, match="the API key is refused") as caught:
            ask_all(teacher(server), questions(50), cache, RequestOptions(**QUICK))
    assert "geheim" not in str(caught.value)
    assert server.paid == 0


def test_a_missing_model_or_address_stops_with_a_fix(tmp_path: Path) -> None:
    with FaultServer() as server, RequestCache(tmp_path / "c.sqlite") as cache:
        wrong = teacher(server, base_url=server.url + "/v1")
        with pytest.raises(TeacherError, match=r"no such model or address.*\n.*check the model's name and the base URL"):
            ask_all(wrong, questions(5), cache, RequestOptions(**QUICK))


def test_a_row_that_the_endpoint_refuses_is_set_aside_for_good(ask: Ask) -> None:
    with FaultServer(Faults(refused=0.2), seed=1) as server:
        first = ask(server, 20)
        asked_for = server.requests
        second = ask(server, 20)
    assert texts(first).count("(refused with 400: refused)") == server.met["refused"] > 0
    assert texts(second) == texts(first)
    assert server.requests == asked_for == 20


def test_if_all_are_refused_it_stops(ask: Ask) -> None:
    with FaultServer(Faults(refused=1.0)) as server:
        with pytest.raises(TeacherError, match="the first 20 requests were all refused: refused with 400"):
            ask(server, 500)
    assert server.requests < 40


def test_the_cost_stays_below_the_cap_and_a_higher_cap_continues(ask: Ask) -> None:
    with FaultServer(latency_s=0.002) as server:
        asked = ask(server, 40, max_cost=0.0003)
        assert asked.stopped is not None
        assert "could exceed max_cost ($0.0003)" in asked.stopped
        done = sum(outcome.reply is not None for outcome in asked.outcomes)
        assert 0 < done < 40
        assert 0 < asked.spent.cost <= 0.0003
        rest = ask(server, 40, max_cost=1)
        assert rest.stopped is None
        assert server.paid == 40
        expected = sum(o.reply.prompt_tokens * 1.0 + o.reply.completion_tokens * 2.0 for o in rest.outcomes if o.reply) / 1e6
        assert rest.spent.cost == pytest.approx(expected)


def test_a_cap_needs_a_price(tmp_path: Path) -> None:
    with RequestCache(tmp_path / "c.sqlite") as cache:
        unpriced = ApiTeacher.find("m", ApiOptions(base_url="http://127.0.0.1:9/v1"))
        with pytest.raises(ConfigError, match="nobody has said what m costs"):
            ask_all(unpriced, questions(1), cache, RequestOptions(max_cost=1))


def test_a_prompt_beyond_the_context_is_not_sent(tmp_path: Path) -> None:
    long = Request("long", [{"role": "user", "content": "word " * 2000}], AskParams())
    with FaultServer() as server, RequestCache(tmp_path / "c.sqlite") as cache:
        asked = ask_all(teacher(server, context_length=1000), [long, *questions(1)], cache, RequestOptions(**QUICK))
    assert texts(asked) == ["(too long: about 2,504 tokens where the teacher takes 1,000)", "echo: question 0"]
    assert server.requests == 1


def test_concurrency_follows_the_endpoint(ask: Ask) -> None:
    with FaultServer(latency_s=0.06) as willing, FaultServer(Faults(rate_limit=0.5), latency_s=0.01) as unwilling:
        ask(willing, 120, "a.sqlite", max_concurrency=24)
        ask(unwilling, 60, "b.sqlite", max_concurrency=24)
    assert willing.most_under_way > 15
    assert unwilling.most_under_way < 10


def test_two_runs_on_one_cache_share_the_work(tmp_path: Path) -> None:
    found: list[list[str]] = []

    def run(server: FaultServer) -> None:
        with RequestCache(tmp_path / "shared.sqlite") as cache:
            found.append(texts(ask_all(teacher(server), questions(80), cache, RequestOptions(**QUICK))))

    with FaultServer(latency_s=0.005) as server:
        runs = [threading.Thread(target=run, args=(server,)) for _ in range(2)]
        for thread in runs:
            thread.start()
        for thread in runs:
            thread.join()
    assert found == [[f"echo: question {number}" for number in range(80)]] * 2
    assert server.paid == 80


def test_the_key_is_neither_in_the_cache_nor_in_the_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHER_API_KEY", "geheim-1234")
    with FaultServer(key="geheim-1234") as server, RequestCache(tmp_path / "c.sqlite") as cache:
        who = teacher(server)
        ask_all(who, questions(3), cache, RequestOptions(**QUICK))
        assert server.paid == 3
        assert b"geheim" not in (tmp_path / "c.sqlite").read_bytes() + (tmp_path / "c.sqlite-wal").read_bytes()
        assert "geheim" not in canonical(who.model.identity)


def test_progress_says_tokens_and_cost(ask: Ask, capsys: pytest.CaptureFixture[str]) -> None:
    with FaultServer() as server:
        ask(server, 10)
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"teacher answers: 10/10 rows, [\d.]+ rows/s, \d+ tokens, \$0\.00, \d+ at once", line)


def test_an_answer_is_kept_the_moment_it_comes(tmp_path: Path) -> None:
    """A process that dies after the tenth answer must not have lost the first nine."""
    with FaultServer(latency_s=0.05) as server, RequestCache(tmp_path / "c.sqlite") as reader:

        def run() -> None:
            with RequestCache(tmp_path / "c.sqlite") as cache:
                ask_all(teacher(server), questions(30), cache, RequestOptions(**{**QUICK, "max_concurrency": 1}))

        thread = threading.Thread(target=run)
        thread.start()
        identity = canonical(teacher(server).model.identity)
        seen = []
        while thread.is_alive():
            paid, stored = server.paid, reader.spent(identity).calls
            seen.append(paid - stored)
            time.sleep(0.01)
        thread.join()
    assert max(seen) <= 1

"""Our own server, measured as any endpoint is: quality, first token, latency and requests/s by clients at once."""

from __future__ import annotations

from collections import Counter

import pytest

from slmops.data.chat import ChatTemplate
from slmops.data.rows import Row
from slmops.errors import TeacherError, UsageError
from slmops.evaluation.endpoint import measure_endpoint
from slmops.evaluation.running import running_measures
from slmops.runtimes.base import Sampling, open_runtime
from slmops.tasks.base import open_task
from slmops.teachers.api import OpenAIClient
from slmops.teachers.catalogue import ApiOptions

GREEDY = Sampling(max_new_tokens=8)
TASK = open_task("generation", {})


def rows_of(count: int) -> list[Row]:
    """What an echo answers rightly."""
    return [Row.of(f"say the number {number}", f"say the number {number}") for number in range(count)]


def test_a_served_model_gives_the_answers_of_its_engine(start, tiny_model):
    runtime = open_runtime("torch", tiny_model, threads=1)
    template = ChatTemplate.load(tiny_model)
    server = start(runtime, template)
    rows = rows_of(12)
    found = measure_endpoint(f"{server.url}/v1", None, rows, TASK, GREEDY, latency_requests=5, concurrency=(1, 4))
    expected = [runtime.generate([template.render(row.messages)], GREEDY)[0].text.strip() for row in rows]
    assert found["answers"] == expected
    assert found["model"] == "echo-1"  # the name that the server lists
    assert len(found["latencies_ms"]) == len(found["first_ms"]) == 5
    assert all(0 < first < whole for first, whole in zip(found["first_ms"], found["latencies_ms"], strict=True))
    assert found["ms_per_token"] > 0
    assert [level["concurrency"] for level in found["throughput"]] == [1, 4]
    assert found["decoding"]["sampling"]["max_new_tokens"] == 8
    assert found["decoding"]["batch_dependent"] is None
    assert {"latency_p99_ms", "ttft_p50_ms", "requests_per_s"} <= running_measures(found).keys()
    assert "memory_mb" not in running_measures(found, floor={"process_mb": 1.0, "peak_process_mb": 1.0})


def test_each_row_is_asked_once_where_there_are_enough(start):
    server = start()
    rows = rows_of(60)
    found = measure_endpoint(f"{server.url}/v1", "echo-1", rows, TASK, GREEDY, latency_requests=8, concurrency=(1, 2, 8))
    assert set(Counter(server.runtime.prompts).values()) == {1}
    assert len(server.runtime.prompts) == 60
    assert found["answers"] == [row.answer for row in rows]
    assert found["quality"][found["primary_measure"]] == 1.0


def test_first_token_and_time_per_token_are_those_of_the_server(start, echo):
    server = start(echo(seconds_per_token=0.1))
    found = measure_endpoint(f"{server.url}/v1", "echo-1", rows_of(4), TASK, GREEDY, latency_requests=4, concurrency=(1,))
    measures = running_measures(found)
    # Four words, each after 100 ms; what ends the answer comes at once, and counts as a token.
    assert 100 <= measures["ttft_p50_ms"] <= measures["latency_p50_ms"] - 100
    assert found["ms_per_token"] == pytest.approx(
        sum(whole - first for first, whole in zip(found["first_ms"], found["latencies_ms"], strict=True)) / 16, abs=0.01
    )
    assert found["requests_per_s_batched"] == found["requests_per_s_single"]


def test_a_full_queue_is_counted_and_every_row_still_gets_its_answer(start, echo):
    server = start(echo(seconds_per_token=0.005), max_waiting=1)
    rows = rows_of(40)
    found = measure_endpoint(f"{server.url}/v1", "echo-1", rows, TASK, GREEDY, latency_requests=8, concurrency=(1, 4))
    assert found["faults"]["rate limit"] > 0
    assert found["answers"] == [row.answer for row in rows]
    assert found["unanswered"] == []


def test_a_row_that_the_endpoint_refuses_is_named_and_has_no_answer(start):
    server = start()
    long = Row.of("word " * 200, "no")
    found = measure_endpoint(f"{server.url}/v1", "echo-1", [*rows_of(5), long], TASK, GREEDY, latency_requests=3, concurrency=(1,))
    assert [one["id"] for one in found["unanswered"]] == [long.id]
    assert "context" in found["unanswered"][0]["reason"]
    assert found["answers"][-1] == ""
    assert found["answers"][0]


def test_tokens_have_their_price(start):
    api = ApiOptions(price_input=1.0, price_output=2.0)
    server = start()
    found = measure_endpoint(f"{server.url}/v1", "echo-1", rows_of(6), TASK, GREEDY, latency_requests=3, concurrency=(1,), api=api)
    row = server.ask(rows_of(1)[0].question).usage
    assert found["cost_per_million"] == pytest.approx(row.prompt_tokens * 1.0 + row.completion_tokens * 2.0)


def test_the_name_of_another_model_stops_at_once(start):
    with pytest.raises(TeacherError, match="this server has 'echo-1'"):
        measure_endpoint(f"{start().url}/v1", "gpt-9", rows_of(3), TASK, GREEDY)


def test_several_models_have_to_be_chosen_from(start, monkeypatch):
    async def two(self) -> list[str]:
        return ["small", "large"]

    monkeypatch.setattr(OpenAIClient, "models", two)
    with pytest.raises(UsageError, match="small, large"):
        measure_endpoint(f"{start().url}/v1", None, rows_of(3), TASK, GREEDY)


@pytest.mark.parametrize("model", [None, "echo-1"])
def test_an_endpoint_that_is_not_there_is_said_to_be_so(model):
    with pytest.raises(TeacherError, match="no connection"):
        measure_endpoint("http://127.0.0.1:9/v1", model, rows_of(3), TASK, GREEDY, latency_requests=3)

"""What answering costs: the figures of requests that took known times."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from slmops.evaluation import running
from slmops.evaluation.measures import COSTS, MEASURES, measure_name
from slmops.evaluation.running import (
    Level,
    Timed,
    batches,
    levels_of,
    percentile,
    running_measures,
    spread,
    stream_one,
    times_of,
    watched,
)
from slmops.runtimes.base import Generation, RuntimeInfo, Sampling


@dataclass
class SlowRuntime:
    """Waits before the first token and between tokens; what is in a batch shares the time."""

    first_s: float = 0.03
    token_s: float = 0.01
    sizes: list[int] = field(default_factory=list)

    @property
    def info(self) -> RuntimeInfo:
        return RuntimeInfo("slow", "float32", 64, batch_dependent=False)

    def tokenize(self, text: str) -> list[int]:
        return [len(word) for word in text.split()]

    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[Generation]:
        self.sizes.append(len(prompts))
        time.sleep(self.first_s)
        return [Generation(prompt, (1,), "stop", 1) for prompt in prompts]

    def stream(self, prompt: str, sampling: Sampling) -> Iterator[str | Generation]:
        time.sleep(self.first_s)
        for word in prompt.split():
            yield word
            time.sleep(self.token_s)
        yield Generation(prompt, tuple(self.tokenize(prompt)), "stop", 1)


def test_the_first_text_and_the_whole_answer_are_timed_in_one_go():
    one = stream_one(SlowRuntime(), "a b c", Sampling())
    assert (one.text, one.steps) == ("a b c", 3)  # b, c and the token that ends it
    assert one.first_ms >= 30
    assert one.whole_ms >= one.first_ms + 30  # three waits after the first text, however slow the machine


def test_an_answer_without_text_has_its_end_as_first_sign():
    one = stream_one(SlowRuntime(), "", Sampling())
    assert one.first_ms == one.whole_ms
    assert one.steps == 0


@pytest.mark.parametrize(("tokens", "reason", "steps"), [(4, "length", 3), (4, "stop", 4), (1, "length", 0), (0, "stop", 0)])
def test_steps_are_the_tokens_after_the_first_with_the_one_that_ends_the_answer(tokens, reason, steps):
    assert Timed.of("", 0.1, 0.2, tokens, reason).steps == steps


def test_time_per_token_is_over_all_tokens_after_the_first():
    found = times_of([Timed("", 100, 130, 3), Timed("", 50, 150, 10), Timed("", 80, 80, 0)])
    assert found["ms_per_token"] == pytest.approx((30 + 100 + 0) / 13, abs=1e-3)
    assert found["first_ms"] == [100, 50, 80]
    assert found["requests_per_s_single"] == pytest.approx(1000 * 3 / 360)


def test_what_does_not_stream_has_no_first_token():
    found = times_of([Timed("", 5, 5, 0)], streamed=False)
    assert (found["first_ms"], found["ms_per_token"], found["latencies_ms"]) == ([], None, [5])


def test_a_batch_answers_as_many_at_once_and_each_waits_for_all():
    runtime = SlowRuntime(first_s=0.02)
    level = batches(runtime, ["a"] * 12, Sampling(), 4)
    assert runtime.sizes == [4, 4, 4]
    assert 0 < level.requests_per_s <= 200
    assert 20 <= level.p50_ms <= level.p95_ms
    assert level.requests_per_s == pytest.approx(4000 / level.p50_ms, rel=0.5)  # not one batch's time for each of its requests


def test_a_level_begins_no_batch_after_its_time(monkeypatch):
    monkeypatch.setattr(running, "LEVEL_SECONDS", 0.05)
    runtime = SlowRuntime(first_s=0.03)
    batches(runtime, ["a"] * 40, Sampling(), 4)
    assert 1 <= len(runtime.sizes) <= 2
    runtime = SlowRuntime(first_s=0.08)
    assert batches(runtime, ["a"] * 40, Sampling(), 4).concurrency == 4  # one batch it always has
    assert len(runtime.sizes) == 1


def test_requests_one_at_a_time_are_the_first_level_where_it_is_wanted():
    single = {"latencies_ms": [10.0, 30.0]}
    above = Level(4, 200.0, 20.0, 21.0)
    first = {"concurrency": 1, "requests_per_s": 50.0, "p50_ms": 20.0, "p95_ms": 29.0}
    assert [level["concurrency"] for level in levels_of(single, [above], (4,))] == [4]
    assert levels_of(single, [above], (1, 4))[0] == first


FOUND = {
    "latencies_ms": [10.0, 20.0, 30.0],
    "first_ms": [4.0, 5.0, 9.0],
    "ms_per_token": 2.0,
    "requests_per_s_single": 50.0,
    "requests_per_s_batched": 100.0,
    "process_mb": 300.0,
    "peak_process_mb": 420.0,
    "cpu_cores_used": 1.7,
    "joules": 6.0,
}


def test_every_figure_of_running_is_in_the_table_of_measures():
    found = running_measures(
        FOUND, price_per_machine_hour=0.36, size_bytes=5e6, floor={"process_mb": 100.0, "peak_process_mb": 120.0}
    )
    assert found == {
        "size_mb": 5.0,
        "process_mb": 300.0,
        "peak_process_mb": 420.0,
        "memory_mb": 200.0,
        "peak_memory_mb": 300.0,
        "latency_p50_ms": 20.0,
        "latency_p95_ms": 29.0,
        "latency_p99_ms": pytest.approx(29.8),
        "ttft_p50_ms": 5.0,
        "ms_per_token": 2.0,
        "requests_per_s": 100.0,
        "cost_per_million": pytest.approx(0.36 * 1e6 / 100 / 3600),
        "cpu_cores_used": 1.7,
        "joules_per_request": 2.0,
    }
    assert found.keys() | {"parameters"} == set(COSTS)
    assert set(COSTS) <= set(MEASURES)


def test_what_is_not_known_is_left_out():
    found = running_measures(
        {**FOUND, "first_ms": [], "ms_per_token": None, "process_mb": None, "peak_process_mb": None, "joules": None},
        floor={"process_mb": 1.0, "peak_process_mb": 1.0},
    )
    left_out = {"ttft_p50_ms", "ms_per_token", "process_mb", "memory_mb", "joules_per_request", "size_mb", "cost_per_million"}
    assert not left_out & found.keys()


def test_answers_paid_by_the_token_cost_what_their_result_says():
    assert running_measures({**FOUND, "cost_per_million": 40.0}, price_per_machine_hour=1.0)["cost_per_million"] == 40.0


@pytest.mark.parametrize(("alias", "name"), [("p99_latency_ms", "latency_p99_ms"), ("ttft_ms", "ttft_p50_ms")])
def test_gates_know_the_other_names(alias, name):
    assert measure_name(alias) == name


def test_cpu_time_is_counted_a_second():
    with watched() as busy:
        end = time.perf_counter() + 0.1
        while time.perf_counter() < end:
            pass
    with watched() as idle:
        time.sleep(0.1)
    assert idle.cpu_cores < 0.2 < busy.cpu_cores
    assert busy.energy


def test_places_are_spread_over_all_and_come_again_where_there_are_fewer():
    assert spread(10, 5) == [0, 2, 4, 6, 8]
    assert spread(2, 4) == [0, 0, 1, 1]
    assert percentile([1.0, 3.0], 0.5) == 2.0

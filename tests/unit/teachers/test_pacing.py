"""How many calls are under way at once follows the endpoint."""

from __future__ import annotations

import asyncio
import random
import time

from slmops.teachers.pacing import Pace, backoff


def test_it_grows_with_answers_up_to_the_most() -> None:
    pace = Pace(6)
    for _ in range(50):
        pace.succeeded()
    assert pace.limit == 6


def test_one_burst_of_refusals_cuts_once() -> None:
    pace = Pace(100, start=10)
    started = time.monotonic()
    for _ in range(8):
        pace.overloaded(started, None)
    assert pace.limit == 7
    pace.overloaded(time.monotonic(), None)
    assert pace.limit == 4


def test_after_a_refusal_it_grows_by_one_a_round() -> None:
    pace = Pace(100, start=10)
    pace.overloaded(time.monotonic(), None)
    for _ in range(7):
        pace.succeeded()
    assert pace.limit == 7
    pace.succeeded()
    assert pace.limit == 8


def test_it_never_stands_still() -> None:
    pace = Pace(4)
    for _ in range(30):
        pace.overloaded(time.monotonic(), None)
    assert pace.limit == 1


def test_no_call_starts_beyond_the_limit_or_in_a_pause() -> None:
    async def trial() -> tuple[int, float]:
        pace, most, under_way = Pace(3, start=3), 0, 0
        pace.overloaded(time.monotonic(), 0.1)
        begun = time.monotonic()
        first = None

        async def call() -> None:
            nonlocal most, under_way, first
            async with pace.call() as started:
                first = first or started
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0.005)
                under_way -= 1

        await asyncio.gather(*(call() for _ in range(12)))
        return most, (first or 0.0) - begun

    most, pause = asyncio.run(trial())
    assert most == 2
    assert 0.09 < pause < 1


def test_the_end_keeps_nobody_waiting() -> None:
    async def trial() -> float:
        pace, begun = Pace(3), time.monotonic()
        pace.overloaded(begun, 3600)

        async def call() -> None:
            async with pace.call():
                pass

        waiting = asyncio.gather(call(), call())
        await asyncio.sleep(0.01)
        await pace.end()
        await waiting
        return time.monotonic() - begun

    assert asyncio.run(trial()) < 1


def test_back_off_doubles_up_to_the_most_with_full_jitter() -> None:
    draws = [[backoff(attempt, 0.5, 8, random.Random(seed)) for seed in range(300)] for attempt in range(1, 9)]
    for attempt, values in enumerate(draws, 1):
        top = min(8, 0.5 * 2 ** (attempt - 1))
        assert 0 <= min(values) < 0.1 * top
        assert 0.9 * top < max(values) <= top

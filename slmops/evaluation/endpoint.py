"""Measure what answers over HTTP: any endpoint with ``POST /chat/completions``, such as ``slmops serve``, vLLM or Ollama.

Clients are real ones, of the package ``openai`` with its retries off, and take answers as streams. They run on this machine,
so an endpoint on the same machine shares its cores with them.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from slmops.data.rows import Row
from slmops.errors import TeacherError, UsageError
from slmops.evaluation import running
from slmops.evaluation.measure import decoding
from slmops.evaluation.running import LEVELS, Level, Timed, levels_of, times_of
from slmops.evaluation.systems import judged
from slmops.progress import progress
from slmops.runtimes.base import Sampling
from slmops.tasks.base import Task
from slmops.teachers.api import ApiTeacher, OpenAIClient
from slmops.teachers.catalogue import ApiModel, ApiOptions, find_api_model
from slmops.teachers.pacing import backoff
from slmops.teachers.replies import AskParams, ChatClient, Fault, Reply

ENDPOINT = "endpoint"
_WARM_UP = 3
_TRIES = 5
_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0


def measure_endpoint(
    base_url: str,
    model: str | None,
    rows: Sequence[Row],
    task: Task,
    sampling: Sampling,
    *,
    latency_requests: int = 60,
    concurrency: Sequence[int] = LEVELS,
    api: ApiOptions | None = None,
) -> dict[str, Any]:
    """Quality, times and requests/s of a served model, in the shape of ``result.json``.

    Each row is answered once, the first ones while requests are timed: one at a time, then by so many clients at once as
    ``concurrency`` says. Where there are fewer rows than timed requests, some are asked again. Memory, CPU and energy of the
    server are not known here. ``faults`` counts requests of the timed part that brought no answer; ``unanswered`` has the
    rows that the endpoint refused, whose answers are empty.

    Args:
        base_url: Address up to and including ``/v1``.
        model: Name of the model there; ``None``: the only one that it lists.
        rows: Test rows; their messages are sent as they stand.
        task: Scores the answers.
        sampling: How the endpoint chooses the next token.
        latency_requests: Timed requests, one at a time; also the most of each further level.
        concurrency: Clients at once.
        api: Prices, name of the variable with the key, patience.

    Raises:
        TeacherError: The endpoint refuses for good, or a row gets no answer in several attempts.
        UsageError: No model is named, and it does not list exactly one.
        MissingExtraError: The package openai is not installed.
    """
    options = (api or ApiOptions()).model_copy(update={"base_url": base_url, "stream": True})
    return asyncio.run(_measure(options, model, rows, task, sampling, latency_requests, sorted(set(concurrency))))


async def _measure(
    options: ApiOptions,
    name: str | None,
    rows: Sequence[Row],
    task: Task,
    sampling: Sampling,
    latency_requests: int,
    levels: Sequence[int],
) -> dict[str, Any]:
    teacher = ApiTeacher.find(name or await _only_model(options), options)
    client = teacher.connect()
    try:
        asker = _Asker(client, rows, AskParams(**asdict(sampling)), str(options.base_url))
        for _ in range(_WARM_UP):
            await asker.timed(next(asker.places))
        singles = [one for _ in range(latency_requests) if (one := await asker.timed(next(asker.places)))]
        if not singles:
            raise TeacherError(f"no request was answered: {dict(asker.faults)}", where=str(options.base_url))
        known = [await asker.level(size, latency_requests) for size in levels if size > 1]
        found = [level for level in known if level is not None]
        await asker.rest(max(levels))
    finally:
        await client.close()
    replies = [asker.replies.get(index) for index in range(len(rows))]
    single = times_of(singles, streamed=any(reply.first_seconds is not None for reply in asker.replies.values()))
    return {
        "runtime": ENDPOINT,
        "precision": "unknown",
        "parameters": None,
        **teacher.model.identity,
        "process_mb": None,
        "peak_process_mb": None,
        **single,
        "requests_per_s_batched": max([single["requests_per_s_single"], *(level.requests_per_s for level in found)]),
        "throughput": levels_of(single, found, levels),
        "faults": dict(asker.faults),
        "unanswered": [{"id": rows[index].id, "reason": reason} for index, reason in sorted(asker.refused.items())],
        "cpu_cores_used": None,
        "joules": None,
        "energy": "the server's energy is not known here",
        "cost_per_million": cost_per_million(teacher.model, list(asker.replies.values())),
        "decoding": {**decoding(sampling, [list(row.messages) for row in rows], None, None), "clients": max(levels)},
        **judged(task, [reply.text if reply else "" for reply in replies], rows),
    }


async def _only_model(options: ApiOptions) -> str:
    model = find_api_model("any", options)
    client = OpenAIClient(model, model.key(), options)
    try:
        names = await client.models()
    except Fault as fault:
        raise TeacherError(str(fault), where=str(options.base_url), fix=fault.fix or "is the server running?") from fault
    finally:
        await client.close()
    if len(names) != 1:
        listed = ", ".join(names) or "none"
        raise UsageError(f"this endpoint lists {len(names)} models", where=str(options.base_url), fix=f"name one of: {listed}")
    return names[0]


class _Asker:
    """One measurement: who is asked, what came back, and which row comes next."""

    def __init__(self, client: ChatClient, rows: Sequence[Row], params: AskParams, where: str) -> None:
        self._client, self._rows, self._params, self._where = client, rows, params, where
        self.replies: dict[int, Reply] = {}
        self.refused: dict[int, str] = {}
        self.faults: Counter[str] = Counter()
        order = list(range(len(rows)))
        random.Random(0).shuffle(order)  # a level's rows are of all kinds, and others than the level's before
        self.places: Iterator[int] = itertools.cycle(order)

    async def timed(self, index: int) -> Timed | None:
        """Ask a row once; ``None`` where that brings no answer, which is counted."""
        started = time.perf_counter()
        try:
            reply = await self._ask(index)
        except Fault as fault:
            self.faults[fault.kind] += 1
            await asyncio.sleep(min(fault.retry_after or 0.0, 1.0))
            return None
        whole = time.perf_counter() - started
        first = whole if reply.first_seconds is None else reply.first_seconds
        return Timed.of(reply.text, first, whole, reply.completion_tokens, reply.finish_reason)

    async def level(self, clients: int, requests: int) -> Level | None:
        """So many clients at once, each with its next request as soon as it has an answer; ``None`` if none got one."""
        places = deque(itertools.islice(self.places, max(requests, 2 * clients)))
        began = time.perf_counter()
        latencies: list[float] = []

        async def work() -> None:
            while places and time.perf_counter() - began <= running.LEVEL_SECONDS:
                one = await self.timed(places.popleft())
                if one is not None:
                    latencies.append(one.whole_ms)

        await _together(work, clients)
        return Level.of(clients, latencies, time.perf_counter() - began) if latencies else None

    async def rest(self, clients: int) -> None:
        """Answer what is not answered yet, each row in several attempts."""
        waiting = deque(index for index in range(len(self._rows)) if index not in self.replies.keys() | self.refused.keys())
        with progress("test answers, endpoint", len(self._rows), "rows", done=len(self._rows) - len(waiting)) as advance:

            async def work() -> None:
                while waiting:
                    await self._insist(waiting.popleft())
                    advance(1)

            await _together(work, clients)

    async def _insist(self, index: int) -> None:
        for attempt in range(1, _TRIES + 1):
            try:
                await self._ask(index)
            except Fault as fault:
                if fault.action == "reject":
                    return
                if attempt == _TRIES:
                    what = f"row {self._rows[index].id} got no answer in {_TRIES} attempts: {fault}"
                    raise TeacherError(what, where=self._where, fix="look at the server's log") from fault
                wait = fault.retry_after or backoff(attempt, _SHORTEST_WAIT_S, _LONGEST_WAIT_S, random.Random())
                await asyncio.sleep(min(wait, _LONGEST_WAIT_S))
            else:
                return

    async def _ask(self, index: int) -> Reply:
        try:
            reply = await self._client.ask(self._rows[index].messages, self._params)
        except Fault as fault:
            if fault.action == "stop":
                raise TeacherError(str(fault), where=self._where, fix=fault.fix) from fault
            if fault.action == "reject":
                self.refused[index] = str(fault)
            raise
        self.replies.setdefault(index, reply)
        return reply


async def _together(work: Callable[[], Any], clients: int) -> None:
    """So many workers; the first error of one ends all and is raised as it is."""
    tasks = [asyncio.create_task(work()) for _ in range(clients)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def cost_per_million(model: ApiModel, replies: Sequence[Reply]) -> float | None:
    """US dollars for a million answers by the tokens of these; ``None`` without a price."""
    costs = [model.cost(reply.prompt_tokens, reply.completion_tokens) for reply in replies]
    known = [cost for cost in costs if cost is not None]
    return 1e6 * sum(known) / len(known) if known else None

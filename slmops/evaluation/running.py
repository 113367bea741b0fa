"""What answering costs, for engines in this process and for endpoints: times, requests a second, CPU, energy, money."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slmops.evaluation.energy import COUNTED, POWERCAP, Energy
from slmops.evaluation.quantiles import percentile
from slmops.runtimes.base import Generation, Runtime, Sampling

LEVELS = (1, 4, 8)
"""Requests at once."""
LEVEL_SECONDS = 2.0
"""After so long no further requests of a level above 1 are begun."""
READ = {"latency_requests", "batch_size", "threads", "price_per_machine_hour", "concurrency"}
"""What measurements, and the cost that follows from them, read of a recipe's section ``evaluation``."""


@dataclass(frozen=True)
class Timed:
    """A request as who asked it saw it.

    Args:
        text: The answer.
        first_ms: From the request to the first text; to the end where there is none.
        whole_ms: From the request to the end of the answer.
        steps: Tokens that came after the first, the one that ends the answer included.
    """

    text: str
    first_ms: float
    whole_ms: float
    steps: int

    @classmethod
    def of(cls, text: str, first_s: float, whole_s: float, tokens: int, finish_reason: str) -> Timed:
        """From seconds, and the tokens of the answer without the one that ends it."""
        return cls(text, 1000 * first_s, 1000 * whole_s, max(0, tokens - 1 + (finish_reason == "stop")))


@dataclass(frozen=True)
class Level:
    """Requests answered a second with so many at once, and what one of them waits; as ``Row.throughput`` of a report."""

    concurrency: int
    requests_per_s: float
    p50_ms: float
    p95_ms: float

    @classmethod
    def of(cls, concurrency: int, latencies_ms: Sequence[float], seconds: float) -> Level:
        """From the time of each request, and of all together."""
        rate = round(len(latencies_ms) / seconds, 4)
        return cls(concurrency, rate, round(percentile(latencies_ms, 0.5), 3), round(percentile(latencies_ms, 0.95), 3))


@dataclass
class Used:
    """What was used while requests were answered one at a time.

    Args:
        cpu_cores: CPU seconds of this process, all its threads, a second.
        joules: Of the whole processor; ``None`` where the machine does not tell.
        energy: What is counted, or why nothing is.
    """

    cpu_cores: float = 0.0
    joules: float | None = None
    energy: str = field(default="")


def stream_one(runtime: Runtime, prompt: str, sampling: Sampling) -> Timed:
    """Answer one prompt, piece by piece.

    It gives both times in one go: at most 2 % slower than ``generate`` for models of 100 M parameters.
    """
    started = time.perf_counter()
    first: float | None = None
    for item in runtime.stream(prompt, sampling):
        now = time.perf_counter() - started
        first = first or now
        if isinstance(item, Generation):
            return Timed.of(item.text, first, now, len(item.token_ids), item.finish_reason)
    raise AssertionError("a stream ends with the whole answer")


def batches(runtime: Runtime, prompts: Sequence[str], sampling: Sampling, size: int) -> Level:
    """Prompts in batches of ``size``, as they come; each waits for the whole batch."""
    latencies: list[float] = []
    began = time.perf_counter()
    for start in range(0, len(prompts) - size + 1, size):
        started = time.perf_counter()
        if started - began > LEVEL_SECONDS:
            break
        runtime.generate(prompts[start : start + size], sampling)
        latencies += [1000 * (time.perf_counter() - started)] * size
    return Level.of(size, latencies, time.perf_counter() - began)


@contextmanager
def watched(root: Path = POWERCAP) -> Iterator[Used]:
    """What the block uses, filled in when it ends."""
    used = Used()
    energy, cpu, started = Energy.now(root), time.process_time(), time.perf_counter()
    yield used
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    after = Energy.now(root)
    used.cpu_cores = cpu / seconds
    used.joules = after.joules_since(energy)
    used.energy = after.why or COUNTED


def times_of(singles: Sequence[Timed], *, streamed: bool = True) -> dict[str, Any]:
    """The part of a result about requests one at a time.

    Args:
        singles: The requests.
        streamed: Whether the answers came in pieces; without, there is no first token.
    """
    steps = sum(one.steps for one in singles)
    rest = sum(one.whole_ms - one.first_ms for one in singles)
    return {
        "latencies_ms": [round(one.whole_ms, 3) for one in singles],
        "first_ms": [round(one.first_ms, 3) for one in singles] if streamed else [],
        "ms_per_token": round(rest / steps, 4) if streamed and steps else None,
        "requests_per_s_single": 1000 * len(singles) / sum(one.whole_ms for one in singles),
    }


def levels_of(single: Mapping[str, Any], levels: Sequence[Level], wanted: Sequence[int]) -> list[dict[str, Any]]:
    """``throughput`` of a result: the requests one at a time, where wanted, and the levels above."""
    latencies = single["latencies_ms"]
    alone = [Level.of(1, latencies, sum(latencies) / 1000)] if 1 in wanted else []
    return [asdict(level) for level in [*alone, *levels]]


def running_measures(
    found: Mapping[str, Any],
    *,
    price_per_machine_hour: float | None = None,
    size_bytes: float | None = None,
    floor: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """The measures of ``COSTS`` that a result has; what is unknown is left out.

    Args:
        found: A result of ``measure`` or ``measure_endpoint``.
        price_per_machine_hour: For the cost of a million requests; of answers paid by the token the result has it itself.
        size_bytes: Of the model's files.
        floor: ``process_mb`` and ``peak_process_mb`` of the engine with a tiny model.
    """
    latencies, first = found["latencies_ms"], found.get("first_ms")
    rate = max(found["requests_per_s_single"], found["requests_per_s_batched"])
    hourly = None if price_per_machine_hour is None else price_per_machine_hour * 1e6 / rate / 3600
    joules, process, peak = found.get("joules"), found.get("process_mb"), found.get("peak_process_mb")
    measures = {
        "size_mb": None if size_bytes is None else size_bytes / 1e6,
        "process_mb": process,
        "peak_process_mb": peak,
        "memory_mb": _above(process, floor, "process_mb"),
        "peak_memory_mb": _above(peak, floor, "peak_process_mb"),
        "latency_p50_ms": percentile(latencies, 0.5),
        "latency_p95_ms": percentile(latencies, 0.95),
        "latency_p99_ms": percentile(latencies, 0.99),
        "ttft_p50_ms": percentile(first, 0.5) if first else None,
        "ms_per_token": found.get("ms_per_token"),
        "requests_per_s": rate,
        "cost_per_million": found.get("cost_per_million") or hourly,
        "cpu_cores_used": found.get("cpu_cores_used"),
        "joules_per_request": None if joules is None else joules / len(latencies),
    }
    return {name: float(value) for name, value in measures.items() if value is not None}


def spread(total: int, count: int) -> list[int]:
    """So many of ``total`` places, evenly spread over all; some come twice where there are fewer."""
    return [index * total // count for index in range(count)]


def _above(value: float | None, floor: Mapping[str, float] | None, name: str) -> float | None:
    if value is None or floor is None:
        return None
    return max(0.0, value - floor[name])

"""Threads that each compute on a share of the processor's cores.

PyTorch spreads each single operation over all cores and waits for the slowest. Where operations are small, or another program has a
core for a moment, most of the time is spent waiting. Threads that each have rows and cores of their own meet once an update.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import torch

THREADS = 2
"""With more, each reads all weights, and in a training writes all gradients, once more."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Cores:
    """A few threads, each with an equal share of the cores that PyTorch has; a context manager that ends them.

    Args:
        threads: How many, at most as many as there are cores.
    """

    def __init__(self, threads: int) -> None:
        whole = torch.get_num_threads()
        self._threads = ThreadPoolExecutor(threads, "slmops-cores", _take_cores, (max(1, whole // threads),))
        all_there = threading.Barrier(threads)
        for started in [self._threads.submit(all_there.wait) for _ in range(threads)]:
            started.result()
        # The number is one of each thread, but also what threads that come later begin with.
        torch.set_num_threads(whole)

    def each(self, function: Callable[[_In], _Out], given: Sequence[_In]) -> list[_Out]:
        """What a function returns for each, at the same time; raises what the first failing one raises, when all have ended."""
        running = [self._threads.submit(function, one) for one in given]
        for one in running:
            one.exception()
        return [one.result() for one in running]

    def __enter__(self) -> Cores:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown()


def bounds_of(count: int, parts: int) -> list[tuple[int, int]]:
    """Where each of so many parts of a sequence begins and ends; their lengths differ by one at most."""
    ends = [count * place // parts for place in range(parts + 1)]
    return list(pairwise(ends))


def _take_cores(count: int) -> None:
    torch.get_num_threads()  # at its first operation a thread would take PyTorch's number for the process instead
    torch.set_num_threads(count)

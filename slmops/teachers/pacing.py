"""How fast an endpoint may be asked: additive increase, multiplicative decrease, as TCP does it (RFC 5681)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator

_DECREASE = 0.7


class Pace:
    """Calls under way at once, adapted to what the endpoint takes, and the pauses it asks for.

    Args:
        most: Upper bound of the calls at once.
        start: Calls at once in the beginning.
    """

    def __init__(self, most: int, start: int = 4) -> None:
        self._limit, self._most = float(min(start, most)), most
        self._fast_start, self._ended = True, False
        self._under_way = 0
        self._quiet_until = self._last_cut = 0.0
        self._changed = asyncio.Condition()

    @property
    def limit(self) -> int:
        """Calls allowed at once at this moment."""
        return max(1, int(self._limit))

    @contextlib.asynccontextmanager
    async def call(self) -> AsyncIterator[float]:
        """Wait for leave to call; yields the time of the start, which :meth:`overloaded` wants."""
        async with self._changed:
            while not self._ended:
                pause = self._quiet_until - time.monotonic()
                if pause <= 0 and self._under_way < self.limit:
                    break
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause if pause > 0 else None):
                        await self._changed.wait()
            self._under_way += 1
        try:
            yield time.monotonic()
        finally:
            async with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    async def end(self) -> None:
        """Keep nobody waiting any more; whoever gets leave now has to look whether there is still something to do."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    def succeeded(self) -> None:
        """An answer came: one call more for each round of answers; until the first overload, one more for each answer."""
        self._limit = min(float(self._most), self._limit + (1.0 if self._fast_start else 1.0 / self._limit))

    def overloaded(self, started: float, retry_after: float | None) -> None:
        """The endpoint has too much to do: fewer calls, none for ``retry_after`` seconds.

        Calls that began before the last cut say nothing new, so one burst of refusals cuts once.
        """
        self._fast_start = False
        if started >= self._last_cut:
            self._last_cut = time.monotonic()
            self._limit = max(1.0, self._limit * _DECREASE)
        if retry_after:
            self._quiet_until = max(self._quiet_until, time.monotonic() + retry_after)


def backoff(attempt: int, base: float, most: float, draw: random.Random) -> float:
    """Seconds before the next attempt (the first failed one is 1): exponential, with full jitter."""
    return draw.uniform(0.0, min(most, base * 2.0 ** (attempt - 1)))

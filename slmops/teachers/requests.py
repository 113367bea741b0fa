"""Many requests to one endpoint: each is answered once, or set aside with its reason, whatever happens on the way."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from pydantic import Field

from slmops.errors import ConfigError, SlmopsError, TeacherError
from slmops.files import canonical
from slmops.progress import duration, progress
from slmops.sections import Section
from slmops.teachers.api import ApiTeacher
from slmops.teachers.base import Outcome, Request
from slmops.teachers.cache import Claim, RequestCache, Spent, Stored, request_key
from slmops.teachers.catalogue import ApiModel
from slmops.teachers.pacing import Pace, backoff
from slmops.teachers.replies import AskParams, ChatClient, Fault, Reply, estimate_tokens

_BUSY_SECONDS = 0.2
_MOST_EMPTY = 3
_ROOM = 2
_MOST_ROOM = 4
_REFUSED_IN_A_ROW = 20
_PROMPT_MARGIN = 1.5
_SURELY_TOO_LONG = 1.5


class RequestOptions(Section):
    """How an endpoint is asked."""

    max_concurrency: int = Field(64, ge=1, description="Most calls at once; how many there are adapts to the endpoint")
    max_attempts: int = Field(8, ge=1, description="Attempts that fail on the way before a row is set aside")
    backoff_s: float = Field(0.5, ge=0, description="Longest wait before the second attempt; it doubles from then on")
    max_backoff_s: float = Field(60, ge=0, description="Longest wait before any attempt")
    patience_s: float = Field(600, gt=0, description="Longest time without any answer, and longest Retry-After, before all stops")
    max_cost: float | None = Field(None, gt=0, description="US dollars that this teacher may cost in this cache, all runs together")


@dataclass(frozen=True)
class Asked:
    """What became of many requests.

    Args:
        outcomes: One a request, in the order given.
        spent: What the teacher has cost in this cache so far.
        faults: What went wrong on the way in this run, by kind.
        stopped: Why the run ended early, all in order; ``None`` where it is complete.
    """

    outcomes: list[Outcome]
    spent: Spent
    faults: dict[str, int]
    stopped: str | None


def ask_all(
    teacher: ApiTeacher,
    requests: Sequence[Request],
    cache: RequestCache,
    options: RequestOptions | None = None,
    *,
    template: str = "",
    client: ChatClient | None = None,
) -> Asked:
    """Ask a teacher; what the cache has is not asked again, and equal requests are asked once.

    Args:
        teacher: Whom to ask.
        requests: What to ask.
        cache: Where answers are kept; other processes may use it at the same time.
        options: Pace, patience and the cap on the cost.
        template: How the messages were made, where they alone do not say it; part of a request's identity.
        client: Asked in place of the teacher's own connection; it stays open.

    Raises:
        TeacherError: The endpoint refuses for good, or does not answer for too long. Answers so far are kept.
        ConfigError: No API key, or a cap on the cost without a price.
        MissingExtraError: The provider's package is not installed.
    """
    options = options or RequestOptions()
    check_price(teacher.model, options)
    return asyncio.run(_Run(teacher, requests, cache, options, template).all(client))


def check_price(model: ApiModel, options: RequestOptions) -> None:
    """Refuse a cap on the cost where nobody has said what the model costs.

    Raises:
        ConfigError: Says what to give.
    """
    if options.max_cost is not None and model.cost(1, 1) is None:
        fix = "give teacher.price_input and teacher.price_output"
        raise ConfigError(f"nobody has said what {model.name} costs", where="max_cost", fix=fix)


@dataclass
class _Row:
    """A request on its way; ``tries`` counts all attempts that failed, ``failed`` those that say something of the row."""

    key: str
    request: Request
    params: AskParams
    prompt_tokens: int
    tries: int = 0
    failed: int = 0
    empty: int = 0


class _Run:
    """One run over many requests."""

    def __init__(
        self, teacher: ApiTeacher, requests: Sequence[Request], cache: RequestCache, options: RequestOptions, template: str
    ) -> None:
        self._model, self._cache, self._options = teacher.model, cache, options
        self._connect, self._name = teacher.connect, canonical(teacher.model.identity)
        self._keys = [(r.id, request_key(teacher.model.identity, r.messages, r.params, template)) for r in requests]
        self._requests = {key: request for (_, key), request in zip(self._keys, requests, strict=True)}
        self._settled = cache.get_many(list(self._requests))
        self._faults: Counter[str] = Counter()
        self._stopped: str | None = None
        self._fatal: SlmopsError | None = None
        self._answered = self._refused = self._calling = 0
        self._random = random.Random()  # jitter has to differ between processes

    async def all(self, client: ChatClient | None) -> Asked:
        """Ask for everything that the cache lacks."""
        waiting = deque(key for key in self._requests if key not in self._settled)
        if waiting:
            used = client or self._connect()
            try:
                await self._ask(used, waiting)
            finally:
                if client is None:
                    await used.close()
        if self._fatal is not None:
            raise self._fatal
        found = [(name, self._settled.get(key, Stored(None, None))) for name, key in self._keys]
        outcomes = [Outcome(name, stored.reply, stored.reason) for name, stored in found]
        return Asked(outcomes, self._cache.spent(self._name), dict(self._faults), self._stopped)

    async def _ask(self, client: ChatClient, waiting: deque[str]) -> None:
        self._pace, self._last_answer = Pace(self._options.max_concurrency), time.monotonic()
        self._over = asyncio.Event()
        rows_of = Counter(key for _, key in self._keys)

        async def work() -> None:
            try:
                while waiting and not self._ending:
                    key = waiting.popleft()
                    stored = await self._settle(client, key)
                    if stored is not None:
                        self._settled[key] = stored
                        advance(rows_of[key])
            except SlmopsError as error:  # the others finish what they have under way
                self._fatal = self._fatal or error
            if self._ending:
                self._over.set()
                await self._pace.end()

        done = sum(rows_of[key] for key in self._settled)
        with progress("teacher answers", len(self._keys), "rows", done=done, note=self._state) as advance:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._options.max_concurrency, len(waiting))):
                    group.create_task(work())

    @property
    def _ending(self) -> bool:
        return self._stopped is not None or self._fatal is not None

    def _state(self) -> str:
        spent = self._cache.spent(self._name)
        return f"{spent.prompt_tokens + spent.completion_tokens:,} tokens, ${spent.cost:.2f}, {self._pace.limit} at once"

    async def _settle(self, client: ChatClient, key: str) -> Stored | None:
        """Ask until there is an answer or a reason; ``None`` where the run ends before."""
        request = self._requests[key]
        row, most = _Row(key, request, request.params, estimate_tokens(request.messages)), self._model.context_length
        if row.prompt_tokens > most * _SURELY_TOO_LONG:
            return Stored(None, f"too long: about {row.prompt_tokens:,} tokens where the teacher takes {most:,}")
        while not self._ending:
            async with self._pace.call() as started:
                claim = None if self._ending else self._claim(row)
                if isinstance(claim, Stored):
                    return claim
                if claim == "claimed":
                    stored = await self._call(client, row, started)
                    if stored is not None:
                        return stored
            if not self._ending:
                await self._wait(self._backoff(row) if claim == "claimed" else _BUSY_SECONDS)
        return None

    async def _wait(self, seconds: float) -> None:
        """Sleep, but not beyond the end of the run."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._over.wait()

    def _claim(self, row: _Row) -> Claim | Stored:
        reserve = self._price(round(row.prompt_tokens * _PROMPT_MARGIN), row.params.max_new_tokens)
        cap = self._options.max_cost
        claim = self._cache.claim(row.key, self._name, reserve=reserve, max_cost=cap)
        if claim == "over the cap" and not self._calling:  # else what is under way may turn out cheaper than reserved
            spent = self._cache.spent(self._name).cost
            self._stopped = f"${spent:.4g} are spent, and the next answer could exceed max_cost (${cap:g})"
        return claim

    async def _call(self, client: ChatClient, row: _Row, started: float) -> Stored | None:
        """Send a claimed request once; ``None`` where it has to be sent again or the run ends."""
        self._calling += 1
        try:
            sent = time.monotonic()
            reply = await client.ask(row.request.messages, row.params)
            reply = replace(reply, seconds=round(time.monotonic() - sent, 4))
        except Fault as fault:
            return self._failed(row, fault, started)
        except BaseException:
            self._cache.release(row.key, lost=True)
            raise
        finally:
            self._calling -= 1
        self._pace.succeeded()
        self._last_answer = time.monotonic()
        if reply.finish_reason == "length":
            return self._truncated(row, reply)
        if reply.finish_reason == "content_filter":
            return self._useless(row, reply, "filtered", f"refused by the provider: {reply.text[:80]}".rstrip(": "))
        if not reply.text:
            row.empty += 1
            return self._useless(row, reply, "empty", f"empty answer: {row.empty} times" if row.empty == _MOST_EMPTY else None)
        self._answered += 1
        self._cache.finish(row.key, reply, self._price(reply.prompt_tokens, reply.completion_tokens))
        return Stored(reply, None)

    def _failed(self, row: _Row, fault: Fault, started: float) -> Stored | None:
        self._faults[fault.kind] += 1
        row.tries += 1
        row.failed += fault.lost or not fault.overload  # what concerns the endpoint as a whole does not count against the row
        if fault.overload:
            self._pace.overloaded(started, fault.retry_after)
        if fault.action == "reject":
            return self._refuse(row, fault)
        self._cache.release(row.key, lost=fault.lost)
        if fault.action == "stop":
            self._fatal = self._fatal or TeacherError(str(fault), where=f"teacher {self._model.name!r}", fix=fault.fix)
        elif (fault.retry_after or 0) > self._options.patience_s:
            self._stopped = f"the endpoint wants to be left alone for {duration(fault.retry_after or 0)}"
        elif time.monotonic() - self._last_answer > self._options.patience_s:
            self._fatal = self._fatal or TeacherError(
                f"no answer for {duration(self._options.patience_s)}; the last attempt: {fault}",
                where=f"teacher {self._model.name!r}",
                fix="look at the network and the provider's status; the same command continues",
            )
        elif row.failed >= self._options.max_attempts:
            return Stored(None, f"no answer in {row.failed} attempts: {fault}")
        return None

    def _refuse(self, row: _Row, fault: Fault) -> Stored:
        self._refused += 1
        if self._refused >= _REFUSED_IN_A_ROW and not self._answered:
            self._fatal = self._fatal or TeacherError(
                f"the first {self._refused} requests were all refused: {fault}",
                where=f"teacher {self._model.name!r}",
                fix="change what the endpoint does not accept; nothing was paid",
            )
        self._cache.reject(row.key, str(fault))
        return Stored(None, str(fault))

    def _truncated(self, row: _Row, reply: Reply) -> Stored | None:
        had = row.params.max_new_tokens
        room = min(_ROOM * had, self._model.context_length - row.prompt_tokens)
        if had < room <= _MOST_ROOM * row.request.params.max_new_tokens:
            row.params = replace(row.params, max_new_tokens=room)
            return self._useless(row, reply, "truncated", None)
        return self._useless(row, reply, "truncated", f"truncated: the answer does not end within {had:,} tokens")

    def _useless(self, row: _Row, reply: Reply, outcome: str, reason: str | None) -> Stored | None:
        """Book an answer that was paid and cannot be used; with a reason, there will be no other attempt."""
        self._faults[f"{outcome} answer"] += 1
        cost = self._price(reply.prompt_tokens, reply.completion_tokens)
        self._cache.charge(row.key, outcome, reply.prompt_tokens, reply.completion_tokens, cost)
        if reason is None:
            self._cache.release(row.key)
            return None
        self._cache.reject(row.key, reason)
        return Stored(None, reason)

    def _backoff(self, row: _Row) -> float:
        if not row.tries:
            return 0.0
        return backoff(row.tries, self._options.backoff_s, self._options.max_backoff_s, self._random)

    def _price(self, prompt_tokens: int, completion_tokens: int) -> float:
        return self._model.cost(prompt_tokens, completion_tokens) or 0.0

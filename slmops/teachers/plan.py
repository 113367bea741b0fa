"""What asking a teacher will need, before the first call and without a key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from slmops.progress import duration
from slmops.teachers.base import Request
from slmops.teachers.cache import RequestCache, request_key
from slmops.teachers.catalogue import ApiModel
from slmops.teachers.replies import estimate_text_tokens, estimate_tokens

# What a large model behind an API usually does; how many calls it takes at once is found out on the way.
_SECONDS_A_CALL, _TOKENS_A_SECOND, _AT_ONCE = 1.0, 50.0, 16


@dataclass(frozen=True)
class RequestPlan:
    """Rows, tokens, time and cost, estimated from the characters.

    Args:
        teacher: Its name.
        provider: Who answers.
        rows: In all.
        cached: Rows whose answer is there already.
        calls: Answers to pay for.
        prompt_tokens: Of these calls.
        completion_tokens: Of these calls, if the answers are as long as the known ones; else half the limit.
        most_completion_tokens: Of these calls, if each takes all it may.
        cost: US dollars; ``None`` where the price is not known.
        most_cost: The same if each answer takes all it may.
        seconds: Rough.
        price: What was reckoned with, and from when it is.
        terms: On training on the answers.
        notice: What has become of the model at its provider; empty for nothing.
        max_cost: The cap, if there is one.
        members: The plans that these are the sums of, where several will be asked.
    """

    teacher: str
    provider: str
    rows: int
    cached: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    most_completion_tokens: int
    cost: float | None
    most_cost: float | None
    seconds: float
    price: str
    terms: str
    notice: str
    max_cost: float | None
    members: tuple[RequestPlan, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def describe(self) -> str:
        """Some lines for people."""
        if self.members:
            total = [f"in all  {self._cost()}, about {duration(self.seconds)}", *self._cap()]
            return "\n\n".join([*(replace(plan, max_cost=None).describe() for plan in self.members), "\n".join(total)])
        known = f" ({self.cached:,} are answered already)" if self.cached else ""
        lines = [
            f"{self.teacher} ({self.provider}): {self.rows:,} rows{known}, {self.calls:,} calls",
            f"tokens  about {self.prompt_tokens:,} in, {self.completion_tokens:,} out (at most {self.most_completion_tokens:,})",
            f"cost    {self._cost()} ({self.price})",
            f"time    about {duration(self.seconds)}, if {_AT_ONCE} answers are made at once",
            f"terms   {self.terms}",
        ]
        if self.notice:
            lines.append(f"note    {self.notice}")
        return "\n".join([*lines, *self._cap()])

    def _cap(self) -> list[str]:
        if self.max_cost is None or (self.cost or 0) <= self.max_cost:
            return []
        return [f"cap     ${self.max_cost:g} is less than that: the run will stop there, and go on with a higher one"]

    def _cost(self) -> str:
        return "at a price nobody has given" if self.cost is None else f"${self.cost:,.2f}, at most ${self.most_cost:,.2f}"


def plan_requests(
    model: ApiModel,
    requests: Sequence[Request],
    cache: Path,
    *,
    known_answers: Sequence[str] = (),
    max_cost: float | None = None,
    template: str = "",
) -> RequestPlan:
    """Reckon what ``ask_all`` will need; asks nobody, writes nothing.

    Args:
        model: The teacher.
        requests: What it will be asked.
        cache: File of the cache, which need not be there.
        known_answers: Answers such as the teacher will give; their mean length is taken for its own.
        max_cost: The cap, in US dollars.
        template: As for ``ask_all``.
    """
    keys = [request_key(model.identity, request.messages, request.params, template) for request in requests]
    distinct = dict(zip(keys, requests, strict=True))
    cached: set[str] = set()
    if cache.is_file():
        with RequestCache(cache) as store:
            cached = set(store.get_many(list(distinct)))
    calls = [request for key, request in distinct.items() if key not in cached]
    prompt = sum(estimate_tokens(request.messages) for request in calls)
    most = sum(request.params.max_new_tokens for request in calls)
    usual = mean(1 + estimate_text_tokens(answer) for answer in known_answers) if known_answers else None
    completion = round(sum(min(usual or r.params.max_new_tokens / 2, r.params.max_new_tokens) for r in calls))
    seconds = (len(calls) * _SECONDS_A_CALL + completion / _TOKENS_A_SECOND) / min(_AT_ONCE, max(1, len(calls)))
    priced = model.price_input is not None and model.price_output is not None
    return RequestPlan(
        teacher=model.name,
        provider=model.provider,
        rows=len(requests),
        cached=sum(key in cached for key in keys),
        calls=len(calls),
        prompt_tokens=prompt,
        completion_tokens=completion,
        most_completion_tokens=most,
        cost=model.cost(prompt, completion),
        most_cost=model.cost(prompt, most),
        seconds=seconds,
        price=f"${model.price_input:g} in, ${model.price_output:g} out a million tokens, {model.price_date}"
        if priced
        else "no price",
        terms=model.terms,
        notice=model.notice,
        max_cost=max_cost,
    )


def total(plans: Sequence[RequestPlan], *, rounds: int = 1) -> RequestPlan | None:
    """The plans of all who will be asked as one; ``None`` where nothing is paid.

    Args:
        plans: One a teacher.
        rounds: How often a row may be asked; what it costs at most is as many times as high.
    """
    if not plans:
        return None
    most = [
        replace(
            plan,
            most_completion_tokens=rounds * plan.most_completion_tokens,
            most_cost=None if plan.most_cost is None else rounds * plan.most_cost,
        )
        for plan in plans
    ]
    if len(most) == 1:
        return most[0]
    return RequestPlan(
        teacher=", ".join(plan.teacher for plan in most),
        provider=", ".join(dict.fromkeys(plan.provider for plan in most)),
        rows=max(plan.rows for plan in most),
        cached=sum(plan.cached for plan in most),
        calls=sum(plan.calls for plan in most),
        prompt_tokens=sum(plan.prompt_tokens for plan in most),
        completion_tokens=sum(plan.completion_tokens for plan in most),
        most_completion_tokens=sum(plan.most_completion_tokens for plan in most),
        cost=_sum([plan.cost for plan in most]),
        most_cost=_sum([plan.most_cost for plan in most]),
        seconds=sum(plan.seconds for plan in most),
        price="; ".join(plan.price for plan in most),
        terms=" ".join(dict.fromkeys(plan.terms for plan in most)),
        notice=" ".join(dict.fromkeys(plan.notice for plan in most if plan.notice)),
        max_cost=plans[0].max_cost,
        members=tuple(most),
    )


def _sum(values: Sequence[float | None]) -> float | None:
    """The sum, if all are known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None

"""A teacher behind an API as every other teacher: paid once, and without personal data in what is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from slmops.files import canonical
from slmops.progress import say
from slmops.teachers.api import ApiTeacher
from slmops.teachers.base import Answers, Request
from slmops.teachers.cache import RequestCache
from slmops.teachers.masking import MaskedRequests
from slmops.teachers.plan import RequestPlan, plan_requests
from slmops.teachers.requests import RequestOptions, ask_all


@dataclass
class RemoteTeacher:
    """An API teacher with the cache of what it was paid for.

    Args:
        api: Whom to ask.
        cache: File of the cache.
        options: Pace, patience and the cap on the cost.
        finders: What looks for personal data before anything is sent; none: nothing does.
        together: All teachers of an ensemble, this one among them: the cap holds for what they cost in all.
    """

    api: ApiTeacher
    cache: Path
    options: RequestOptions = field(default_factory=RequestOptions)
    finders: tuple[str, ...] = ()
    together: list[RemoteTeacher] = field(default_factory=list, repr=False)
    _told: bool = field(default=False, init=False, repr=False)

    @property
    def name(self) -> str:
        """Its name in the catalogue, or at the endpoint."""
        return self.api.model.name

    @property
    def identity(self) -> Mapping[str, Any]:
        """Protocol, model, address, and what masks personal data."""
        return {**self.api.model.identity, **({"masked_by": list(self.finders)} if self.finders else {})}

    def ask(self, requests: Sequence[Request], work: Path) -> Answers:
        """Ask for what the cache lacks; ``work`` is not needed.

        Raises:
            TeacherError: The endpoint refuses for good, or does not answer for too long. Answers so far are kept.
            ConfigError: No API key, or a cap on the cost without a price.
            MissingExtraError: The provider's package, or what a finder needs, is not installed.
        """
        masked = self._masked(requests)
        self._tell(masked, requests)
        with RequestCache(self.cache) as cache:
            asked = ask_all(self.api, masked.requests, cache, self._what_is_left(cache))
        facts: dict[str, Any] = {"teacher": dict(self.identity), **asdict(asked.spent), "faults": asked.faults}
        if self.finders:
            facts["masked"] = masked.counts
        return Answers(masked.restore(asked.outcomes), facts, asked.stopped)

    def plans(self, requests: Sequence[Request]) -> list[RequestPlan]:
        """What it will cost; answers are taken to be as long as the rows' gold ones."""
        return [self._plan(self._masked(requests), requests)]

    def _what_is_left(self, cache: RequestCache) -> RequestOptions:
        """The options with what the other teachers have left of the cap."""
        if self.options.max_cost is None:
            return self.options
        names = {canonical(teacher.api.model.identity) for teacher in self.together} - {canonical(self.api.model.identity)}
        left = self.options.max_cost - sum(cache.spent(name).cost for name in names)
        return self.options.model_copy(update={"max_cost": max(left, 0.0)})

    def _plan(self, masked: MaskedRequests, requests: Sequence[Request]) -> RequestPlan:
        known = [request.row.answer for request in requests if request.row is not None and request.row.answer is not None]
        return plan_requests(self.api.model, masked.requests, self.cache, known_answers=known, max_cost=self.options.max_cost)

    def _masked(self, requests: Sequence[Request]) -> MaskedRequests:
        logprobs = self.api.options.top_logprobs
        asked = [replace(request, params=replace(request.params, top_logprobs=logprobs)) for request in requests]
        return MaskedRequests.of(asked, self.finders)

    def _tell(self, masked: MaskedRequests, requests: Sequence[Request]) -> None:
        """Once, before the first call: what it will cost, and what may be done with the answers."""
        if self._told:
            return
        plan = self._plan(masked, requests)
        if plan.calls:
            say(plan.describe())
            self._told = True

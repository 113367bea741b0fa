"""An API teacher and its cache as one :class:`slmops.teachers.base.Teacher`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from slmops.errors import UsageError, nearest
from slmops.teachers.api import ApiTeacher
from slmops.teachers.base import Answers, Outcome, Request
from slmops.teachers.cache import RequestCache, request_key
from slmops.teachers.catalogue import API_MODELS, ApiOptions, is_api_teacher
from slmops.teachers.plan import RequestPlan, plan_requests
from slmops.teachers.requests import RequestOptions, ask_all

_CACHE = "requests.sqlite"


@dataclass(frozen=True)
class CachedApi:
    """A teacher behind an API that asks nothing twice; ``work`` has its cache."""

    teacher: ApiTeacher
    options: RequestOptions

    @classmethod
    def open(cls, name: str, teacher: ApiOptions, options: RequestOptions) -> CachedApi:
        """The teacher of that name; nothing is sent yet.

        Raises:
            UsageError: It is not behind an API.
        """
        if not is_api_teacher(name, teacher):
            fix = f"{nearest(name, API_MODELS)}; a model of any other endpoint needs --base_url"
            raise UsageError(f"{name!r} is no teacher behind an API", where="--teacher", fix=fix)
        return cls(ApiTeacher.find(name, teacher), options)

    @property
    def name(self) -> str:
        """As the catalogue or the user has it."""
        return self.teacher.model.name

    @property
    def identity(self) -> Mapping[str, str]:
        """Protocol, model and address."""
        return self.teacher.model.identity

    def ask(self, requests: Sequence[Request], work: Path) -> Answers:
        """Answer requests, in order; see :func:`slmops.teachers.requests.ask_all`."""
        with RequestCache(work / _CACHE) as cache:
            asked = ask_all(self.teacher, requests, cache, self.options)
        facts = {"teacher": self.teacher.model.identity, **asdict(asked.spent), "faults": asked.faults}
        return Answers(asked.outcomes, facts, asked.stopped)

    def known(self, requests: Sequence[Request], work: Path) -> dict[str, Outcome]:
        """What the cache has already, by the requests' ids."""
        if not (work / _CACHE).is_file():
            return {}
        keys = {request.id: request_key(self.identity, request.messages, request.params) for request in requests}
        with RequestCache(work / _CACHE) as cache:
            found = cache.get_many(list(keys.values()))
        return {name: Outcome(name, found[key].reply, found[key].reason) for name, key in keys.items() if key in found}

    def plan(self, requests: Sequence[Request], work: Path, likely: Sequence[str] = ()) -> RequestPlan:
        """What asking will need; ``likely`` are replies such as may come."""
        return plan_requests(self.teacher.model, requests, work / _CACHE, known_answers=likely, max_cost=self.options.max_cost)

"""What every teacher offers, wherever it runs: questions in, answers or reasons out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from slmops.data.rows import Message, Row
from slmops.teachers.replies import AskParams, Reply

if TYPE_CHECKING:
    from slmops.teachers.plan import RequestPlan


@dataclass(frozen=True)
class Request:
    """A question to a teacher; ``id`` is the caller's and comes back with the outcome.

    Args:
        id: The caller's.
        messages: What is asked.
        params: How it is answered.
        row: The row that it is about. Rules choose and verify by it; it is no part of the question.
    """

    id: str
    messages: Sequence[Message]
    params: AskParams
    row: Row | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a request: a reply, a reason why there is none, or neither where the run stopped before it.

    Args:
        id: The request's.
        reply: The answer.
        reason: Why there is none.
        teacher: Name of who answered, where several could have.
        agreement: Share of the members of an ensemble that gave this answer; ``None`` where one alone was asked.
    """

    id: str
    reply: Reply | None
    reason: str | None
    teacher: str | None = None
    agreement: float | None = None

    @property
    def settled(self) -> bool:
        """Whether there is an answer, or a reason why there is none."""
        return self.reply is not None or self.reason is not None


@dataclass(frozen=True)
class Answers:
    """What became of many requests.

    Args:
        outcomes: One a request, in the order given.
        facts: What else there is to tell, for manifests and reports: cost, tokens, faults (see ``teachers.facts``).
        stopped: Why the run ended early, all in order; ``None`` where it is complete.
    """

    outcomes: list[Outcome]
    facts: Mapping[str, Any] = field(default_factory=dict)
    stopped: str | None = None


class Teacher(Protocol):
    """Who answers: an API, a model on this machine, a file of recorded answers, or several of them."""

    @property
    def name(self) -> str:
        """As the user named it."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What determines the answers besides messages and parameters; part of cache keys and stage ids; no secret is in it."""

    def ask(self, requests: Sequence[Request], work: Path) -> Answers:
        """Answer requests, in order; what ``work`` or the teacher's cache has is not asked again.

        Raises:
            TeacherError: It refuses for good, or does not answer for too long. Answers so far are kept.
        """

    def plans(self, requests: Sequence[Request]) -> list[RequestPlan]:
        """What these requests will cost, one plan for each API that will be asked; needs no key and asks nobody."""

"""What every teacher offers, wherever it runs: questions in, answers or reasons out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from slmops.data.rows import Message
from slmops.teachers.replies import AskParams, Reply


@dataclass(frozen=True)
class Request:
    """A question to a teacher; ``id`` is the caller's and comes back with the outcome."""

    id: str
    messages: Sequence[Message]
    params: AskParams


@dataclass(frozen=True)
class Outcome:
    """What became of a request: a reply, a reason why there is none, or neither where the run stopped before it.

    Args:
        id: The request's.
        reply: The answer.
        reason: Why there is none.
        teacher: Name of who answered, where several could have.
    """

    id: str
    reply: Reply | None
    reason: str | None
    teacher: str | None = None


@dataclass(frozen=True)
class Answers:
    """What became of many requests.

    Args:
        outcomes: One a request, in the order given.
        facts: What else there is to tell, for manifests and reports: cost, tokens, faults.
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

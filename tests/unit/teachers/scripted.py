"""A teacher that says what a test tells it to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slmops.teachers.base import Answers, Outcome, Request
from slmops.teachers.plan import RequestPlan
from slmops.teachers.replies import Reply

Say = Callable[[Request], str | None]


class Scripted:
    """Answers by a function; ``None`` stands for a run that stopped before the request."""

    def __init__(self, name: str, say: Say) -> None:
        self.name, self.identity, self._say = name, {"scripted": name}, say
        self.asked: list[Request] = []

    def ask(self, requests: Sequence[Request], work: Path) -> Answers:
        self.asked += requests
        outcomes = [self._outcome(request) for request in requests]
        stopped = None if all(outcome.settled for outcome in outcomes) else f"{self.name} stopped"
        return Answers(outcomes, self.facts(len(self.asked)), stopped)

    def facts(self, calls: int) -> Mapping[str, Any]:
        return {"teacher": self.identity, "calls": calls, "cost": calls / 10, "faults": {"timeout": 1}}

    def plans(self, requests: Sequence[Request]) -> list[RequestPlan]:
        return []

    def _outcome(self, request: Request) -> Outcome:
        text = self._say(request)
        if text is None:
            return Outcome(request.id, None, None)
        return (
            Outcome(request.id, Reply(text, "stop", 1, 1, None, self.name), None)
            if text
            else Outcome(request.id, None, "empty answer")
        )

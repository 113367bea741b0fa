"""The command line as tests call it: in their own process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str


Call = Callable[..., Result]

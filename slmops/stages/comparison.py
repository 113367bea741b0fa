"""What a report is made of: the measured models, and the exported ones that were judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from slmops.evaluation.gates import GateResult, Verdict, overall
from slmops.evaluation.systems import System
from slmops.workspace import StageResult


class Named(Protocol):
    """A model from outside of the run, or who answers from there."""

    @property
    def reference(self) -> str:
        """As the recipe names it."""

    @property
    def source(self) -> str:
        """Where it comes from."""

    @property
    def license(self) -> str:
        """Its licence or terms."""

    @property
    def fingerprint(self) -> str:
        """What tells it from others."""


@dataclass(frozen=True)
class Candidate:
    """A model that was converted, packaged, measured and judged; without scheme, bundle and system where no scheme agreed.

    Args:
        name: Row of the model it was made of.
        scheme: How its weights are stored.
        bundle: Its package.
        system: The package as measured.
        results: Verdicts of the gates.
        attempts: The report's lines about every scheme that was tried.
    """

    name: str
    scheme: str | None
    bundle: StageResult | None
    system: System | None
    results: tuple[GateResult, ...]
    attempts: list[dict[str, Any]]

    @property
    def verdict(self) -> Verdict:
        """Of all gates together."""
        return overall(list(self.results))

    @property
    def quality(self) -> float:
        """The primary measure as packaged; below every other where it could not be."""
        return self.system.quality if self.system else -1.0


@dataclass(frozen=True)
class Comparison:
    """What the report compares: measured rows, candidates for the package and the one chosen, and the outside models."""

    systems: Mapping[str, System]
    candidates: list[Candidate]
    chosen: Candidate | None
    models: Sequence[tuple[str, Named | None]]

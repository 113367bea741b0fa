"""The exception tree: every error says where, what is wrong and what to do.

All errors that a user can cause derive from :class:`SlmopsError`; the command line prints them without a traceback and
exits with their ``exit_code`` (0 done, 1 a gate failed, 2 wrong usage or an error, 3 INCONCLUSIVE).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class SlmopsError(Exception):
    """Base of all errors of this package.

    Args:
        what: What is wrong, in one sentence.
        where: The place it was found: a file and line, a recipe key, a flag.
        fix: What the user can do about it.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.fix:
            lines.append(f"  → {self.fix}")
        return "\n".join(lines)


class UsageError(SlmopsError):
    """The command line asks for something that does not exist or does not fit together."""


class ConfigError(SlmopsError):
    """A recipe has an unknown key, a wrong type or values that contradict each other."""


class DataError(SlmopsError):
    """The data cannot be used as a whole; single bad rows are set aside instead (see ``data.sources``)."""


class ModelError(SlmopsError):
    """A model cannot be found, loaded, converted or does not fit this machine."""


class ResourceError(SlmopsError):
    """The machine lacks something: memory, disk space, a free port."""


class MissingExtraError(SlmopsError):
    """An optional dependency is not installed; names the pip extra that brings it, if one does, and what does without it."""

    def __init__(self, package: str, extra: str | None, *, without: str | None = None) -> None:
        what = f"'slmops[{extra}]'" if extra else package
        super().__init__(
            f"the package {package!r} is not installed",
            fix=f"pip install {what}" + (f", or do without: {without}" if without else ""),
        )


class TeacherError(SlmopsError):
    """A teacher's endpoint refuses or does not answer, or its answers would cost more than allowed."""


class ArtifactError(SlmopsError):
    """A stage's result on disk is missing, damaged or of another kind than asked for."""


class FingerprintError(SlmopsError):
    """A cache was made from another teacher, tokenizer, template or data than the one in use."""


class TrainingError(SlmopsError):
    """A training run cannot work: no trained token, a loss that is not finite."""


class GateError(SlmopsError):
    """No model passes the gates of the recipe."""

    exit_code = 1


class InconclusiveError(SlmopsError):
    """The interval of a gated measure spans the bound: more test rows are needed."""

    exit_code = 3


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence with the closest known name, or the list of what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else "known: " + ", ".join(names)


def at(file: Path | str, line: int | None = None, field: str | None = None) -> str:
    """The place of a problem in a file, as editors understand it: ``file:line``."""
    place = f"{file}:{line}" if line is not None else str(file)
    return f"{place}, field {field!r}" if field else place

"""Named plug points: a name stands for ``module:attribute``, imported when it is first asked for.

Built-in and third-party plug-ins come through the same door: an entry point in the group ``slmops.<registry>``
(for example ``slmops.objectives``) adds a name.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from slmops.errors import MissingExtraError, UsageError, nearest


@dataclass(frozen=True)
class Entry:
    """Where a plug-in lives and which pip extra brings what it imports."""

    target: str
    extra: str | None = None


@dataclass
class Registry:
    """A plug point.

    Args:
        kind: What the entries are, singular; used in messages and, with an ``s``, as entry-point group.
        builtin: The names shipped with the package.
    """

    kind: str
    builtin: Mapping[str, Entry]
    _entries: dict[str, Entry] | None = field(default=None, init=False, repr=False)

    def entries(self) -> Mapping[str, Entry]:
        """All names, the built-in ones and those of installed plug-ins; a name given twice raises ``UsageError``."""
        if self._entries is None:
            entries = dict(self.builtin)
            for point in entry_points(group=f"slmops.{self.kind}s"):
                if point.name in entries:
                    raise UsageError(
                        f"the {self.kind} {point.name!r} is registered twice ({entries[point.name].target}, {point.value})",
                        fix="uninstall one of the packages that bring it",
                    )
                entries[point.name] = Entry(point.value)
            self._entries = entries
        return self._entries

    def names(self) -> list[str]:
        """The known names, sorted."""
        return sorted(self.entries())

    def get(self, name: str) -> Any:
        """The object behind ``name``.

        Raises:
            UsageError: The name is unknown; the message has the nearest one.
            MissingExtraError: What the plug-in imports is not installed.
        """
        entry = self.entries().get(name)
        if entry is None:
            raise UsageError(f"unknown {self.kind} {name!r}", fix=nearest(name, self.names()))
        module, _, attribute = entry.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if entry.extra is None or missing in ("", "slmops"):
                raise
            raise MissingExtraError(missing, entry.extra) from error

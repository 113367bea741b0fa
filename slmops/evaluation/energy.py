"""Energy of the processor, where the machine tells it: the counters of Linux' powercap (RAPL)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
COUNTED = "energy of the whole processor and its memory while requests were answered, idle draw and other programs included"
_ENERGY, _RANGE = "energy_uj", "max_energy_range_uj"


@dataclass(frozen=True)
class Energy:
    """The counters of a machine at one moment.

    Args:
        microjoules: By counter.
        ranges: Where each counter starts again at zero.
        why: Why there is none; empty where there is.
    """

    microjoules: Mapping[str, int]
    ranges: Mapping[str, int]
    why: str = ""

    @classmethod
    def now(cls, root: Path = POWERCAP) -> Energy:
        """Read all packages, and the memory beside them; the domains inside a package are part of it."""
        domains = {folder.name: folder for folder in sorted(root.glob("intel-rapl:*")) if _counts(folder)}
        if not domains:
            return cls({}, {}, "this machine does not tell its energy (no RAPL counters)")
        try:
            joules = {name: int((folder / _ENERGY).read_text()) for name, folder in domains.items()}
            ranges = {name: int((folder / _RANGE).read_text()) for name, folder in domains.items()}
        except OSError:
            return cls({}, {}, f"the energy counters cannot be read; {root}/*/{_ENERGY} usually needs root")
        return cls(joules, ranges)

    def joules_since(self, earlier: Energy) -> float | None:
        """Joules between two readings; ``None`` where there are no counters."""
        if not self.microjoules or self.microjoules.keys() != earlier.microjoules.keys():
            return None
        spent = 0
        for name, value in self.microjoules.items():
            difference = value - earlier.microjoules[name]
            spent += difference if difference >= 0 else difference + self.ranges[name]
        return spent / 1e6


def _counts(folder: Path) -> bool:
    name = folder / "name"
    return name.is_file() and name.read_text().strip().startswith(("package", "dram"))

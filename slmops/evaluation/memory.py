"""How memory is measured, the same way for every engine.

One process a model, and of it the resident set: what the process holds in memory. Two figures are read:

- after warm-up requests, when lazy buffers are filled: what it takes to stand ready;
- the highest of the whole life of the process, loading the model and answering in batches included: what a container has
  to allow. Nothing comes before the model in that process, so nothing has to be reset.

Weights that are mapped from a file count once they were read. A kernel short of memory may drop such pages and read them
again later, which costs time; the figures say what it takes to avoid that. Two processes with one model share them.

From each figure the same figure of a process with a tiny random model on the same engine is subtracted, which leaves the
model's own share. The unique set (USS) would not do for that: it counts the engine's libraries or not, as another process
maps them or not.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path

_EVERY_SECONDS = 0.01
_STATUS = Path("/proc/self/status")


def resident_mb() -> float:
    """The resident set of this process, in MiB."""
    import psutil

    resident: int = psutil.Process().memory_info().rss
    return resident / 2**20


def peak_mb() -> float:
    """The largest resident set that this process has had, in MiB."""
    # The kernel counts in batches, so the highest mark may be a little below what is resident now.
    return max(resident_mb(), _peak_bytes() / 2**20)


class Peak:
    """The largest resident set of this process while a block runs, in MiB: ``with Peak() as peak: ...; peak.mb``.

    Exact where the block reaches more than the process ever had; else the largest of a look every 10 ms.
    """

    def __init__(self) -> None:
        self.mb = 0.0
        self._before = 0.0
        self._end = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Peak:
        self.mb, self._before = resident_mb(), peak_mb()
        self._looking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._looking.join()
        highest = peak_mb()
        self.mb = max(self.mb, resident_mb(), highest if highest > self._before else 0.0)

    def _look(self) -> None:
        while not self._end.wait(_EVERY_SECONDS):
            self.mb = max(self.mb, resident_mb())


def _peak_bytes() -> int:
    if _STATUS.is_file():
        # Not ru_maxrss: a process inherits that from the one that started it.
        found = [line.split() for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
        if found:
            return int(found[0][1]) * 1024
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

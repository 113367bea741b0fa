"""How memory is measured, the same way for every engine.

One process a model. The figure is read after warm-up requests, when lazy buffers are filled. It is the resident set:
what the process holds in memory, weights that are mapped from a file included once they were read. From it the same
figure of a process with a tiny random model on the same engine is subtracted, which leaves the model's own share. The
unique set (USS) would not do for that: it counts the engine's libraries or not, as another process maps them or not.
"""

from __future__ import annotations


def resident_mb() -> float:
    """The resident set of this process, in MiB."""
    import psutil

    resident: int = psutil.Process().memory_info().rss
    return resident / 2**20

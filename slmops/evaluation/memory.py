"""How memory is measured, the same way for every engine.

One process a model. The figure is read after warm-up requests, when lazy buffers are filled. It is the unique set size:
pages that only this process holds, weights that are mapped from a file included once they were read. From it the same
figure of a process with a tiny random model on the same engine is subtracted, which leaves the model's own share.
"""

from __future__ import annotations


def resident_mb() -> float:
    """Memory that only this process holds, in MiB: USS on Linux, macOS and Windows; elsewhere the resident set."""
    import psutil

    process = psutil.Process()
    try:
        unique: int = process.memory_full_info().uss
    except (AttributeError, psutil.AccessDenied):
        unique = process.memory_info().rss
    return unique / 2**20

"""Does it fit this machine? Memory and disk are checked before anything is downloaded or started."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path
from typing import Literal

from slmops.errors import ResourceError
from slmops.models.catalogue import CATALOGUE

Purpose = Literal["inference", "training-full", "training-lora"]

_PROCESS_MB = 600.0  # Python with torch and transformers loaded
_VOCABULARY = 50_000


def memory_needed_mb(parameters: int, purpose: Purpose, *, bytes_per_parameter: float = 4, batch_tokens: int = 2048) -> float:
    """About how much memory a model needs, in units of 10⁶ bytes.

    With P parameters and T tokens in a batch::

        inference       600 MB + P·b + activations/4
        training-full   600 MB + P·(b + 12) + activations + logits     (gradient 4, AdamW 8 bytes a weight)
        training-lora   600 MB + P·b · 1.1  + activations + logits     (adapters, their gradients and AdamW: 10 %)

    where b is ``bytes_per_parameter``, activations = T · 100 bytes · 1.5·√P (layers times width is close to 1.5·√P from 135 M to
    8 B parameters; some 25 float32 values are kept for each) and logits = T · 50,000 · 12 bytes. For a model of 135 M parameters
    this is 1 to 21 % above the measured peak of training steps and 19 to 46 % above that of a forward pass.

    Args:
        parameters: Number of weights.
        purpose: What the model is loaded for.
        bytes_per_parameter: 4 for float32 weights, 2 for bfloat16, bits over 8 for packed ones.
        batch_tokens: Tokens that go through the model at once, padding included.
    """
    weights = parameters * bytes_per_parameter / 1e6
    activations = activations_mb(parameters, batch_tokens)
    if purpose == "inference":
        return _PROCESS_MB + weights + activations / 4
    logits = batch_tokens * _VOCABULARY * 12 / 1e6
    trained = parameters * 12 / 1e6 if purpose == "training-full" else 0.1 * weights
    return _PROCESS_MB + weights + trained + activations + logits


def activations_mb(parameters: int, tokens: float) -> float:
    """About what a training keeps of so many tokens for the backward pass, logits apart, in units of 10⁶ bytes."""
    return tokens * 100 * 1.5 * math.sqrt(parameters) / 1e6


def physical_cores() -> int:
    """Cores that this process may use, without the second thread of a core; the threads that engines take by themselves."""
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(usable, psutil.cpu_count(logical=False) or usable)


def memory_available_mb() -> float:
    """Memory this process may still take, in units of 10⁶ bytes: the machine's, or less where a control group limits it."""
    import psutil

    available = float(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit = float((group / "memory.max").read_text())
        cached = next(
            int(line.split()[1]) for line in (group / "memory.stat").read_text().splitlines() if line.startswith("inactive_file")
        )
        available = min(available, limit - int((group / "memory.current").read_text()) + cached)
    except (OSError, ValueError, StopIteration):  # no control group, or one without a limit ("max")
        pass
    return available / 1e6


def memory_beside_mb(parameters: int) -> float:
    """About how much more memory it takes to have a model answer in a process that trains another, in units of 10⁶ bytes."""
    return memory_needed_mb(parameters, "inference") - _PROCESS_MB if parameters else 0.0


def check_fits(
    parameters: int, purpose: Purpose, *, what: str, bytes_per_parameter: float = 4, batch_tokens: int = 2048, beside: int = 0
) -> None:
    """Refuse a model that is too big for this machine.

    Args:
        parameters: Number of weights.
        purpose: What the model is loaded for.
        what: Name of the model, for the message.
        bytes_per_parameter: 4 for float32 weights, 2 for bfloat16, bits over 8 for packed ones.
        batch_tokens: Tokens that go through the model at once.
        beside: Weights of a second model that answers meanwhile.

    Raises:
        ResourceError: It needs more memory than is available; the message names the biggest known model that fits.
    """
    available = memory_available_mb()

    def need(count: int) -> float:
        own = memory_needed_mb(count, purpose, bytes_per_parameter=bytes_per_parameter, batch_tokens=batch_tokens)
        return own + memory_beside_mb(beside)

    if need(parameters) <= available:
        return
    fitting = [entry for entry in CATALOGUE.values() if need(entry.parameters) <= available]
    smaller = max(fitting, key=lambda entry: entry.parameters).name if fitting else None
    purposes = _WORDS[purpose] + (f" beside a model of {_count(beside)}" if beside else "")
    raise ResourceError(
        f"{what} has {_count(parameters)} parameters and needs about {need(parameters) / 1e3:,.1f} GB of memory for "
        f"{purposes}; {available / 1e3:,.1f} GB are available on this machine",
        fix=f"use a smaller model, such as {smaller}, or a machine with more memory" if smaller else "close other programs",
    )


def check_disk(path: Path, needed_mb: float) -> None:
    """Refuse to start what would fill the disk that ``path`` is, or will be, on.

    Raises:
        ResourceError: Less than ``needed_mb`` (units of 10⁶ bytes) and a margin of 5 % are free.
    """
    folder = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    free_mb = shutil.disk_usage(folder).free / 1e6
    if free_mb < 1.05 * needed_mb:
        raise ResourceError(
            f"about {needed_mb:,.0f} MB of disk are needed and {free_mb:,.0f} MB are free",
            where=str(path),
            fix="make room, or use another disk (output_path; SLMOPS_CACHE and HF_HOME for models)",
        )


_WORDS = {"inference": "inference", "training-full": "full training", "training-lora": "LoRA training"}


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.1f} billion" if parameters >= 1e9 else f"{parameters / 1e6:.0f} million"

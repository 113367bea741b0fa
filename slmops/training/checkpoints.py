"""Checkpoints that are marked when they are complete, so that one half-written when the process was killed is never used."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from slmops.files import write_json

_COMPLETE = "complete"
_BEST = "best.safetensors"


def checkpoint_at(work: Path, step: int) -> Path:
    """The folder in which transformers' Trainer writes the checkpoint after so many updates."""
    return work / f"checkpoint-{step}"


def mark_complete(checkpoint: Path) -> None:
    """Say that all of a checkpoint is there."""
    write_json(checkpoint / _COMPLETE, {"step": step_of(checkpoint)})


def newest_checkpoint(work: Path) -> Path | None:
    """The newest complete checkpoint; half-written ones are removed."""
    if not work.is_dir():
        return None
    complete = []
    for folder in work.glob("checkpoint-*"):
        if (folder / _COMPLETE).is_file():
            complete.append(folder)
        else:
            shutil.rmtree(folder)
    return max(complete, key=step_of, default=None)


def keep_newest(work: Path, count: int) -> None:
    """Remove all complete checkpoints but the newest so many."""
    complete = sorted((mark.parent for mark in work.glob(f"checkpoint-*/{_COMPLETE}")), key=step_of)
    for folder in complete[:-count]:
        (folder / _COMPLETE).unlink()  # what is removed halfway is none
        shutil.rmtree(folder)


def step_of(checkpoint: Path | None) -> int:
    """Updates before a checkpoint; 0 without one."""
    return int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0


def trained_weights(model: Any) -> dict[str, torch.Tensor]:
    """Those of a model that are trained, by name."""
    return {name: one.detach() for name, one in model.named_parameters() if one.requires_grad}


def save_best(work: Path, trained: Mapping[str, torch.Tensor]) -> None:
    """Keep the weights that are trained as they are now, by name, in place of those kept before."""
    work.mkdir(parents=True, exist_ok=True)
    temporary = work / f".{_BEST}.tmp"
    save_file({name: one.contiguous() for name, one in trained.items()}, temporary)
    temporary.replace(work / _BEST)


def load_best(work: Path, model: Any) -> None:
    """Put back what :func:`save_best` kept."""
    parameters = dict(model.named_parameters())
    for name, kept in load_file(work / _BEST).items():
        parameters[name].data.copy_(kept)

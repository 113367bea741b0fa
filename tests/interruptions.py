"""Trainings that end as if somebody had pressed Ctrl-C."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from slmops.training import trainer


@contextmanager
def interrupted_after(monkeypatch: pytest.MonkeyPatch, checkpoint: str) -> Iterator[None]:
    """While it lasts, a training is interrupted when a checkpoint of this name is complete."""
    original = trainer.mark_complete

    def marked(folder: Path) -> None:
        original(folder)
        if folder.name == checkpoint:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "mark_complete", marked)
        yield


@contextmanager
def interrupted_in(
    monkeypatch: pytest.MonkeyPatch, call: int, function: str = "total_loss", where: Any = trainer
) -> Iterator[None]:
    """While it lasts, a training is interrupted in so many-th call of a function, and says so with ``KeyboardInterrupt``.

    Args:
        monkeypatch: Of the test.
        call: The first is 1.
        function: Its name; that which computes the loss of a batch, or of a thread's rows.
        where: What has it.
    """
    original, calls = getattr(where, function), []

    def counted(*arguments: Any, **options: Any) -> Any:
        calls.append(call)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(where, function, counted)
        with pytest.raises(KeyboardInterrupt):
            yield

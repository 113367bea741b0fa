"""slmops: from a teacher to a small, measured, served language model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from slmops.api import Scores as Scores
    from slmops.api import evaluate as evaluate
    from slmops.api import evaluate_model as evaluate_model

__version__ = "0.1.0"
__all__ = ["Scores", "__version__", "evaluate", "evaluate_model"]


def __getattr__(name: str) -> Any:
    """The functions of the Python interface, imported when they are first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from slmops import api

    return getattr(api, name)

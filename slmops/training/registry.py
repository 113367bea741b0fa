"""The registry of losses; naming them needs no torch."""

from __future__ import annotations

from slmops.registry import Entry, Registry

OBJECTIVES = Registry(
    "objective",
    {
        "cross_entropy": Entry("slmops.training.objectives:CrossEntropy"),
        "forward_kl": Entry("slmops.training.objectives:ForwardKL"),
    },
)

"""Losses at answer positions.

An objective is an options model that is called with the student's logits and returns one loss a position. Adding one is
a class with a ``__call__``, its options, a line in ``training.registry``; the contract tests then run over it.
"""

from slmops.training.objectives.base import Answers, CrossEntropy, Objective
from slmops.training.objectives.divergences import ForwardKL
from slmops.training.objectives.weighted import WeightedSum

__all__ = ["Answers", "CrossEntropy", "ForwardKL", "Objective", "WeightedSum"]

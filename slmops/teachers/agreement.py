"""A teacher on this machine against its own cached signals: in the student's place, and asked again."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from slmops.data.templates import Encoded
from slmops.errors import TeacherError
from slmops.runtimes.torch_runtime import TorchRuntime
from slmops.signals.distribution import Distribution
from slmops.signals.tensors import SampledTensors, Signal, join
from slmops.teachers.local import LocalTeacher
from slmops.training.batches import collate
from slmops.training.findings import Agreement
from slmops.training.forward import answers_of, losses_of
from slmops.training.objectives import ForwardKL
from slmops.training.projection import Projection

_EXACT, _ROUGH = (1e-3, 0.02), (0.05, 0.2)
"""KL in nats a token, and share of the cached mass, that another batch may change: in float32, and in bfloat16."""

_HALF = 2.0**-11
"""Relative rounding of float16."""

_LEAST = 0.1


def compare(teacher: LocalTeacher, encoded: Sequence[Encoded], cached: Sequence[Distribution]) -> Agreement:
    """Hold cached signals against their teacher, on one batch of rows.

    Args:
        teacher: With PyTorch.
        encoded: Rows in the teacher's tokens.
        cached: Their signals.

    Raises:
        TeacherError: The engine is not PyTorch.
    """
    if not isinstance(teacher.runtime, TorchRuntime):
        raise TeacherError(f"{teacher.runtime.info.name} gives no distributions", fix="load the teacher with the engine torch")
    model = teacher.runtime.model
    batch = collate(encoded, int(teacher.template.tokenizer.eos_token_id), cached)
    with torch.inference_mode():
        losses = losses_of(model, batch, ForwardKL(), Projection.of(model)).double()
        live = answers_of(model, batch).logits
    kl, moved = _EXACT if model.dtype == torch.float32 else _ROUGH
    known, logs = join(cached), torch.log_softmax(live, dim=-1)
    if isinstance(known, SampledTensors):
        # What was drawn is right on average: its mean is off by a few times the error of a mean. Draws of tokens that are as
        # good as equally likely fall otherwise with the least rounding, so what is compared is how uncertain the teacher is.
        noise = 4 * float(losses.std(correction=0)) / len(losses) ** 0.5
        what, whole = "the entropy", known.entropy
        differences = (-(logs.exp() * logs).sum(-1) - whole).abs()
    else:
        noise, what, whole = 0.0, "a probability", known.logprobs.exp()
        differences = (logs.gather(-1, known.ids).exp() - whole).abs()
    return Agreement(
        tokens=len(losses),
        self_kl=abs(float(losses.mean())),
        self_kl_most=kl + noise + 2 * _HALF * _entropy(known),
        what=what,
        largest=float(differences.max()),
        apart=float(differences.sum() / whole.sum().clamp(min=_LEAST)),
        apart_most=moved,
    )


def _entropy(signal: Signal) -> float:
    """Mean over the positions, in nats, of what is stored."""
    if isinstance(signal, SampledTensors):
        return float(signal.entropy.mean())
    logs = torch.cat([signal.logprobs, signal.tail.unsqueeze(-1)], dim=-1)
    return float(-(logs.exp() * logs).sum(-1).mean())

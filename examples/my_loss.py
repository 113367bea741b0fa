"""Losses of one's own, as ``slmops finetune --loss examples/my_loss.py:NAME`` takes them."""

import torch
import torch.nn.functional as F
from torch import nn


class ContrastiveLoss(nn.Module):
    """Rows of one label together, those of another apart, up to a margin (Hadsell et al. 2006).

    ``output1`` and ``output2`` are the embeddings of two rows, ``[P, H]`` and of length one; ``label`` is 0 where the rows have
    the same answer and 1 where they do not, ``[P]``.
    """

    def __init__(self, margin: float = 1.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, output1: torch.Tensor, output2: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """The mean over the pairs."""
        euclidean_distance = F.pairwise_distance(output1, output2)
        return torch.mean(
            (1 - label) * torch.pow(euclidean_distance, 2)
            + label * torch.pow(torch.clamp(self.margin - euclidean_distance, min=0.0), 2)
        )


class FocalLoss(nn.Module):
    """Cross-entropy that cares less for tokens that are learned already (Lin et al. 2017).

    ``logits`` stand at the answer's tokens, ``[N, V]``; ``labels`` are these tokens, ``[N]``.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean over the tokens."""
        losses = F.cross_entropy(logits, labels, reduction="none")
        likely = torch.exp(-losses)
        return ((1 - likely) ** self.gamma * losses).mean()


class LabelSmoothing(nn.Module):
    """Cross-entropy with a share of the target spread over all tokens (Szegedy et al. 2016)."""

    def __init__(self, smoothing: float = 0.1) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of each token, ``[N]``."""
        logprobs = F.log_softmax(logits, dim=-1)
        of_label = -logprobs.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        return (1 - self.smoothing) * of_label - self.smoothing * logprobs.mean(-1)

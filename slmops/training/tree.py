"""The rows of a batch as one tree of tokens: what rows begin with alike is there once, and padding not at all.

In a causal model the states at a token depend on the tokens up to it alone. Rows with a common beginning (a chat template, an
instruction, a premise with several hypotheses) have the same states there, and a gradient that is the sum of theirs. So what a
model does with each token by itself is done once a node; attention sees the rows (:mod:`slmops.training.tree_attention`). For
rollouts that share a prompt this is known (Prefix Grouper, Liu et al. 2025); here any rows share what they happen to share.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch

from slmops.training.batches import padded_count, padded_width


@dataclass(frozen=True)
class Tree:
    """``U`` nodes, of which the first ``real`` are tokens and the others fill up; rows stand on the left of a grid ``[B, T]``.

    Args:
        input_ids: int64 ``[1, U]``.
        position_ids: Depths of the nodes, int64 ``[1, U]``.
        nodes: The node of each place of the grid, int64 ``[B, T]``; any behind a row's end.
        owners: A place of each token in the flattened grid, int64 ``[real]``, each another one.
        twins: Places of nodes that have an owner elsewhere, int64 ``[2, S]``: place and node.
        answers: Nodes that predict an answer token, each once, int64 ``[K]``.
        answer_index: Which of these predicts each answer token, int64 ``[N]``.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    nodes: torch.Tensor
    owners: torch.Tensor
    twins: torch.Tensor
    answers: torch.Tensor
    answer_index: torch.Tensor

    @classmethod
    def of(cls, batch: Mapping[str, torch.Tensor]) -> Tree:
        """That of a batch of :func:`slmops.training.batches.collate`; what stands behind a row's last prediction is left out."""
        columns = len(batch["logits_to_keep"])
        row_of = (batch["answer_index"] // columns).tolist()
        column_of = batch["logits_to_keep"][batch["answer_index"] % columns].tolist()
        texts, masks, positions = (batch[name].tolist() for name in ("input_ids", "attention_mask", "position_ids"))
        predicting = [(row, positions[row][column]) for row, column in zip(row_of, column_of, strict=True)]
        lengths = [0] * len(texts)
        for row, position in predicting:
            lengths[row] = max(lengths[row], position + 1)
        width = padded_width(max(lengths))

        known: dict[tuple[int, int], int] = {}
        tokens: list[int] = []
        depths: list[int] = []
        owners: list[int] = []
        twins: list[tuple[int, int]] = []
        nodes: list[list[int]] = []
        for row, (text, mask, length) in enumerate(zip(texts, masks, lengths, strict=True)):
            node, path = -1, []
            for depth, token in enumerate([token for token, there in zip(text, mask, strict=True) if there][:length]):
                place, node = row * width + depth, known.setdefault((node, token), len(tokens))
                if node == len(tokens):
                    tokens.append(token)
                    depths.append(depth)
                    owners.append(place)
                else:
                    twins.append((place, node))
                path.append(node)
            nodes.append(path + [0] * (width - length))
        answers, answer_index = torch.tensor([nodes[row][position] for row, position in predicting]).unique(return_inverse=True)
        fill = [0] * (padded_count(len(tokens)) - len(tokens))
        return cls(
            input_ids=torch.tensor([tokens + fill]),
            position_ids=torch.tensor([depths + fill]),
            nodes=torch.tensor(nodes),
            owners=torch.tensor(owners),
            twins=torch.tensor(twins, dtype=torch.int64).reshape(-1, 2).T,
            answers=answers,
            answer_index=answer_index,
        )

    @cached_property
    def sharing(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Nodes that have twins, int64 ``[M]``, and which twins are theirs, float32 ``[M, S]`` of zeros and ones."""
        shared, which = self.twins[1].unique(return_inverse=True)
        return shared, (which == torch.arange(len(shared)).unsqueeze(1)).float()

"""Which layers matter: how far each one turns what passes through it, measured on texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.errors import ModelError
from slmops.models.load import load_model

if TYPE_CHECKING:
    import torch

_TEXTS = 64
_TOKENS = 8192


def block_influence(model: Path, rows: Sequence[Sequence[int]]) -> list[float]:
    """Block influence of each layer (ShortGPT, Men et al. 2024): 1 − mean cosine of a token's vector before and after it.

    Some rows are enough: at most 64, spread over what is given, and at most 8,192 tokens.

    Args:
        model: Its folder.
        rows: Token ids of texts; of training texts, never of test texts.

    Returns:
        A number from 0 (the layer does nothing) to 2 a layer.

    Raises:
        ModelError: No text, or a model whose layers are not in one list.
    """
    import torch

    chosen = _some(rows)
    if not chosen:
        raise ModelError(
            "there is no text to measure layers on", where="keep: importance", fix="give training rows, or keep: uniform"
        )
    network = load_model(model)
    layers = decoder_layers(network)
    turned = [0.0] * len(layers)

    def measure(number: int) -> Any:
        def hook(_module: Any, arguments: Any, keywords: dict[str, Any], output: Any) -> None:
            before = (arguments[0] if arguments else keywords["hidden_states"]).flatten(0, -2).float()
            after = (output[0] if isinstance(output, tuple) else output).flatten(0, -2).float()
            turned[number] += float((1 - torch.cosine_similarity(before, after, dim=-1)).sum())

        return hook

    for number, layer in enumerate(layers):
        layer.register_forward_hook(measure(number), with_kwargs=True)
    with torch.inference_mode():
        for ids in chosen:
            network(input_ids=torch.tensor([list(ids)]), use_cache=False, logits_to_keep=1)
    tokens = sum(map(len, chosen))
    return [total / tokens for total in turned]


def important_layers(influence: Sequence[float], keep: int) -> list[int]:
    """The ``keep`` layers with the most influence, in their order; of equals the first.

    Raises:
        ModelError: More layers than there are, or fewer than one.
    """
    if not 1 <= keep <= len(influence):
        raise ModelError(f"cannot keep {keep} of {len(influence)} layers", fix=f"choose 1 to {len(influence)}")
    return sorted(sorted(range(len(influence)), key=lambda number: (-influence[number], number))[:keep])


def describe_influence(influence: Sequence[float], kept: Sequence[int]) -> str:
    """A line for people: each layer's influence, those that are kept in brackets."""
    return f"influence    [kept] {mark_kept([f'{value:.3f}' for value in influence], kept)}"


def mark_kept(figures: Sequence[str], kept: Sequence[int]) -> str:
    """The figure of each layer behind its number, those of the layers that are kept in brackets."""
    words = [f"{number}: {figure}" for number, figure in enumerate(figures)]
    return " ".join(f"[{word}]" if number in kept else word for number, word in enumerate(words))


def decoder_layers(network: Any) -> torch.nn.ModuleList:
    """The list of a loaded model's layers.

    Raises:
        ModelError: There is no one list as long as the model is deep.
    """
    import torch

    config = network.config.get_text_config()
    found = [
        module
        for module in network.modules()
        if isinstance(module, torch.nn.ModuleList) and len(module) == config.num_hidden_layers
    ]
    if len(found) != 1:
        raise ModelError(f"the layers of this model (type {config.model_type!r}) are not in one list", fix="keep: uniform")
    return found[0]


def _some(rows: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    filled = [row for row in rows if row]
    spread = [filled[number * len(filled) // _TEXTS] for number in range(_TEXTS)] if len(filled) > _TEXTS else filled
    chosen, tokens = [], 0
    for row in spread:
        if tokens < _TOKENS:
            chosen.append(row[: _TOKENS - tokens])
            tokens += len(row)
    return chosen

"""Bottleneck adapters: a small network with a residual after a sub-layer of a frozen decoder.

``h + up(f(down(h)))``, where ``down`` leads to a few values and ``up`` back. Houlsby et al. (2019) put one after the attention and
one after the feed-forward network of each layer, Pfeiffer et al. (2021) one after the latter alone; here before a layer adds its
input. The ``up`` of a new one is zero, so that the model starts as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from slmops.errors import ConfigError, ModelError
from slmops.models.bottleneck_folder import BOTTLENECK_WEIGHTS, BottleneckFolder, BottleneckKind
from slmops.models.cache import fingerprint
from slmops.models.load import load_model
from slmops.models.resolve import resolve

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_FEED_FORWARD = ("mlp", "feed_forward", "ffn")
_PLACES = {"houlsby": (_ATTENTION, _FEED_FORWARD), "pfeiffer": (_FEED_FORWARD,)}
_ACTIVATIONS = {"houlsby": torch.nn.SiLU, "pfeiffer": torch.nn.ReLU}


class Bottleneck(torch.nn.Module):
    """``h + up(f(down(h)))``; the identity at first.

    Args:
        width: Values of a token outside, ``H``.
        size: Values of a token within.
        kind: Decides ``f``: SiLU for ``houlsby``, ReLU for ``pfeiffer``, as in the ``adapters`` library.
    """

    def __init__(self, width: int, size: int, kind: BottleneckKind) -> None:
        super().__init__()
        self.down, self.up, self.activation = torch.nn.Linear(width, size), torch.nn.Linear(size, width), _ACTIVATIONS[kind]()
        torch.nn.init.zeros_(self.up.weight)
        torch.nn.init.zeros_(self.up.bias)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """``[..., H]`` to ``[..., H]``."""
        changed: torch.Tensor = states + self.up(self.activation(self.down(states)))
        return changed

    def after(self, _module: torch.nn.Module, _given: Any, output: Any) -> Any:
        """As a forward hook of a sub-layer, whose first or only output are the states."""
        return (self(output[0]), *output[1:]) if isinstance(output, tuple) else self(output)


def insert(model: Any, kind: BottleneckKind, size: int) -> None:
    """Freeze a model and put new adapters, which are trained, after sub-layers of each of its layers.

    They are parts of their layers, named ``bottleneck_`` and the sub-layer's name, and work as hooks of it: the names of all other
    weights stay.

    Raises:
        ConfigError: The model's layers have other parts than those that are looked for.
    """
    model.requires_grad_(False)
    weight = model.get_input_embeddings().weight
    width = int(model.config.get_text_config().hidden_size)
    for layer in _layers(model, kind):
        for names in _PLACES[kind]:
            name = _part(layer, names)
            bottleneck = Bottleneck(width, size, kind).to(device=weight.device, dtype=weight.dtype)
            layer.add_module(f"bottleneck_{name}", bottleneck)
            # A bound method: a copy of the model has hooks of its own adapters.
            getattr(layer, str(name)).register_forward_hook(bottleneck.after)


def _layers(model: Any, kind: BottleneckKind) -> list[Any]:
    count = int(model.config.get_text_config().num_hidden_layers)
    for module in model.modules():
        if (
            isinstance(module, torch.nn.ModuleList)
            and len(module) == count
            and all(_part(layer, names) for layer in module for names in _PLACES[kind])
        ):
            return list(module)
    wanted = " and ".join(f"one of {', '.join(names)}" for names in _PLACES[kind])
    raise ConfigError(
        f"a {type(model).__name__} has no list of {count} layers that each have {wanted}",
        where="training.bottleneck",
        fix="train this model with --method lora",
    )


def _part(layer: Any, names: tuple[str, ...]) -> str | None:
    return next((name for name in names if isinstance(getattr(layer, name, None), torch.nn.Module)), None)


def own_weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights of a model's adapters, by name."""
    return {
        f"{place}.{name}": parameter.detach().to("cpu", torch.float32).contiguous()
        for place, module in model.named_modules()
        if isinstance(module, Bottleneck)
        for name, parameter in module.named_parameters()
    }


def save_bottleneck(model: Any, base: Path, target: Path, kind: BottleneckKind) -> None:
    """Write a model's adapters to a folder, without the base's weights and the tokenizer.

    Args:
        model: With adapters of :func:`insert`.
        base: Folder of the base.
        target: The folder to fill.
        kind: Of the adapters.
    """
    from safetensors.torch import save_file

    target.mkdir(parents=True, exist_ok=True)
    save_file(own_weights(model), target / BOTTLENECK_WEIGHTS)
    model.config.save_pretrained(target)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(target)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    (size,) = {module.down.out_features for module in model.modules() if isinstance(module, Bottleneck)}
    BottleneckFolder(str(base), fingerprint(base), kind, size, parameters).write(target)


def load_bottlenecked(path: Path, dtype: Literal["float32", "bfloat16"], attention: Literal["eager", "sdpa"]) -> PreTrainedModel:
    """The base of a bottleneck adapter's folder with the adapters in it, in evaluation mode.

    Raises:
        ModelError: The base is not to be had, or is another than the one it was trained on.
    """
    folder = BottleneckFolder.read(path)
    base = resolve(folder.base_model_name_or_path)
    if base.fingerprint != folder.base_fingerprint:
        raise ModelError(
            f"{folder.base_model_name_or_path} is another model than the one that this adapter was trained on",
            where=str(path),
            fix="put the base back, or train the adapter again",
        )
    model = load_model(base.path, dtype=dtype, attention=attention)
    insert(model, folder.kind, folder.size)
    load_own(model, path)
    return model.eval()


def load_own(model: Any, path: Path) -> None:
    """Put the weights of a folder's adapters into those of a model.

    Raises:
        ModelError: They are of another shape, or of other layers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights = load_file(path / BOTTLENECK_WEIGHTS)
    except SafetensorError as error:
        raise ModelError(f"not a safetensors file: {error}", where=str(path / BOTTLENECK_WEIGHTS)) from error
    own = own_weights(model)
    if {name: one.shape for name, one in weights.items()} != {name: one.shape for name, one in own.items()}:
        raise ModelError("these adapters have other layers or sizes than their settings say", where=str(path))
    model.load_state_dict(weights, strict=False)

"""Make a shallower model by dropping whole decoder layers, directly on the files and without loading the model."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slmops.errors import ModelError
from slmops.files import write_json
from slmops.models.cache import MODEL_FILES
from slmops.models.load import CONFIG, WEIGHTS, read_config, tensor_infos, weight_files
from slmops.models.weights import write_safetensors

LAYER_KEY = re.compile(r"(?P<stack>(?:.*?\.)?(?:layers|h)\.)(?P<index>\d+)(?P<rest>\..+)")
"""Name of a tensor that belongs to a layer."""

_DEPTH_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
# Settings that choose what a layer is by its number, and the list that takes their place where a config has it.
_RULES_BY_NUMBER = {
    "sliding_window_pattern": "layer_types",
    "use_sliding_window": "layer_types",
    "full_attention_interval": "layer_types",
    "no_rope_layer_interval": "no_rope_layers",
    "first_k_dense_replace": "mlp_layer_types",
    "mlp_only_layers": "mlp_layer_types",
    "attn_layer_period": "layers_block_type",
}


def uniform_layers(total: int, keep: int) -> list[int]:
    """``keep`` layer numbers of ``total``, evenly spaced, the first and the last always among them.

    Raises:
        ModelError: More layers than there are, or fewer than the two ends.
    """
    if not min(2, total) <= keep <= total:
        raise ModelError(f"cannot keep {keep} of {total} layers", fix=f"choose {min(2, total)} to {total}")
    if keep == 1:
        return [0]
    return [(2 * step * (total - 1) + keep - 1) // (2 * (keep - 1)) for step in range(keep)]


def cut_depth(source: Path, target: Path, keep: Sequence[int]) -> None:
    """Write to ``target`` the model of ``source`` with only the layers ``keep``, renumbered from 0; the tokenizer is copied.

    The weights are copied as bytes, a tensor at a time. Works for decoders whose tensors are named ``…layers.<n>.…`` or
    ``…h.<n>.…``; lists in the config with one item a layer (such as ``layer_types``) are cut the same way.

    Args:
        source: Model folder in Hugging Face layout.
        target: Folder to write to; made if it does not exist.
        keep: Numbers of the layers to keep, from 0, increasing.

    Raises:
        ModelError: A number that does not exist, or a model whose layers cannot be told from its files.
    """
    config = read_config(source)
    tensors = [(file, name, info) for file in weight_files(source) for name, info in tensor_infos(file).items()]
    total = _count_layers(source, config, [name for _, name, _ in tensors])
    if not keep or list(keep) != sorted(set(keep)) or keep[0] < 0 or keep[-1] >= total:
        raise ModelError(
            f"cannot keep the layers {list(keep)}", where=str(source), fix=f"increasing numbers from 0 to {total - 1}, each once"
        )
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if MODEL_FILES.fullmatch(file.name) and file.name != CONFIG and "safetensors" not in file.name:
            shutil.copyfile(file, target / file.name)
    new_number = {old: new for new, old in enumerate(keep)}
    kept = {_renamed(name, new_number): (file, info) for file, name, info in tensors if _is_kept(name, new_number)}
    write_safetensors(target / WEIGHTS, kept)
    write_json(target / CONFIG, _cut_config(config, total, keep))


def _count_layers(source: Path, config: Mapping[str, Any], names: Iterable[str]) -> int:
    matches = [match for name in names if (match := LAYER_KEY.fullmatch(name))]
    stacks = sorted({match["stack"] for match in matches})
    total = next((int(config[key]) for key in _DEPTH_KEYS if isinstance(config.get(key), int)), 0)
    problem = None
    if len(stacks) != 1 or {int(match["index"]) for match in matches} != set(range(total)):
        problem = f"expected {total} layers named …layers.<n>.… or …h.<n>.…, found {', '.join(stacks) or 'none'}"
    rules = [key for key, instead in _RULES_BY_NUMBER.items() if instead not in _spelt_out(config) and config.get(key)]
    if rules:
        problem = f"{', '.join(rules)} in its config ties what a layer does to its number"
    if problem:
        raise ModelError(
            f"layers of this model (type {config.get('model_type')!r}) cannot be dropped: {problem}", where=str(source)
        )
    return total


def _is_kept(name: str, new_number: Mapping[int, int]) -> bool:
    match = LAYER_KEY.fullmatch(name)
    return match is None or int(match["index"]) in new_number


def _renamed(name: str, new_number: Mapping[int, int]) -> str:
    match = LAYER_KEY.fullmatch(name)
    return name if match is None else f"{match['stack']}{new_number[int(match['index'])]}{match['rest']}"


def _cut_config(config: Mapping[str, Any], total: int, keep: Sequence[int]) -> dict[str, Any]:
    def cut(key: str, value: Any) -> Any:
        if key in _DEPTH_KEYS:
            return len(keep)
        if isinstance(value, list) and len(value) == total and "layer" in key:
            return [value[number] for number in keep]
        return value

    return {key: cut(key, value) for key, value in _spelt_out(config).items()}


def _spelt_out(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Gemma 3's pattern of one global layer after some local ones as a list, so that kept layers keep their kind."""
    pattern = config.get("sliding_window_pattern")
    if config.get("model_type") != "gemma3_text" or not isinstance(pattern, int) or "layer_types" in config:
        return config
    total = int(config["num_hidden_layers"])
    kinds = ["full_attention" if (number + 1) % pattern == 0 else "sliding_attention" for number in range(total)]
    return {**{key: value for key, value in config.items() if key != "sliding_window_pattern"}, "layer_types": kinds}

"""How alike answers and references are in meaning: the cosine of their embeddings by a model that the user names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from slmops.errors import ConfigError, MissingExtraError, ModelError
from slmops.models import load
from slmops.models.resolve import resolve

SIMILARITY = "similarity"
"""Name of the measure, and of its scores in ``Outputs.scores``."""


def similarities(model: str | None, answers: Sequence[str], references: Sequence[str], *, batch_size: int = 32) -> list[float]:
    """Cosine of each pair's embeddings, from -1 to 1; 0 where a text is empty.

    Args:
        model: A folder with an encoder or a language model, or a name of the catalogue.
        answers: Texts.
        references: One for each.
        batch_size: Texts at once.

    Raises:
        ConfigError: No model is named.
        ModelError: It cannot be found or loaded.
        MissingExtraError: torch or transformers is not installed.
    """
    if model is None:
        raise ConfigError(
            "the similarity of embeddings needs a model",
            where=SIMILARITY,
            fix="name one: the folder of an encoder (config.json, safetensors, tokenizer) or a name of the catalogue",
        )
    texts = sorted({*answers, *references})
    vectors = dict(zip(texts, embed(_folder(model), texts, batch_size=batch_size), strict=True))
    return [float(vectors[answer] @ vectors[reference]) for answer, reference in zip(answers, references, strict=True)]


def embed(folder: Path, texts: Sequence[str], *, batch_size: int = 32) -> np.ndarray:
    """The mean of the last hidden states over a text's tokens, in float32, made one long: shape (texts, hidden).

    Texts longer than the model's context are cut. A text without tokens has zeros.

    Raises:
        ModelError: The model or its tokenizer cannot be loaded.
        MissingExtraError: torch or transformers is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtraError("torch", "train") from error
    model, tokenizer, context = _encoder(folder), load.load_tokenizer(folder), load.context_length(folder)
    ids = [list(tokenizer(text)["input_ids"])[:context] if text.strip() else [] for text in texts]
    vectors = np.zeros((len(texts), int(model.config.hidden_size)), dtype=np.float32)
    order = sorted((place for place, own in enumerate(ids) if own), key=lambda place: len(ids[place]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        width = len(ids[chosen[-1]])
        inputs = torch.tensor([ids[place] + [tokenizer.pad_token_id or 0] * (width - len(ids[place])) for place in chosen])
        mask = torch.tensor([[1] * len(ids[place]) + [0] * (width - len(ids[place])) for place in chosen])
        with torch.inference_mode():
            hidden = model(input_ids=inputs, attention_mask=mask).last_hidden_state
        means = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        vectors[chosen] = torch.nn.functional.normalize(means, dim=-1).numpy()
    return vectors


def _folder(model: str) -> Path:
    """An encoder's folder as it stands; what else there is goes the way of all models, which takes language models alone."""
    path = Path(model).expanduser()
    return path if (path / load.CONFIG).is_file() else resolve(model).path


def _encoder(folder: Path) -> Any:
    load.weight_files(folder)
    load.quiet_transformers()
    import torch
    from transformers import AutoModel

    try:
        model, info = AutoModel.from_pretrained(
            str(folder),
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"the model cannot be loaded: {error}", where=str(folder)) from error
    # The pooler is not used, and many encoders come without one.
    missing = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ModelError(f"{len(missing)} tensors are missing from the weights, such as {missing[0]}", where=str(folder))
    return model.eval()

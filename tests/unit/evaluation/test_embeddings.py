"""Similarity of embeddings against a text-by-text computation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slmops.errors import ConfigError, ModelError
from slmops.evaluation.embeddings import embed, similarities

TEXTS = ["where is my parcel", "refund", "", "the discount code does not work at the checkout " * 40]


def test_a_text_is_the_mean_of_its_tokens_states_whatever_it_is_batched_with(tiny_model: Path) -> None:
    import torch
    from transformers import AutoModel

    from slmops.models.load import load_tokenizer

    found = embed(tiny_model, TEXTS, batch_size=3)
    model, tokenizer = AutoModel.from_pretrained(tiny_model).eval(), load_tokenizer(tiny_model)
    for text, vector in zip(TEXTS, found, strict=True):
        ids = tokenizer(text)["input_ids"][:256]
        if not ids:
            assert not vector.any()
            continue
        with torch.no_grad():
            mean = model(torch.tensor([ids])).last_hidden_state[0].double().mean(0)
        assert vector == pytest.approx((mean / mean.norm()).numpy(), abs=1e-5)


def test_the_similarity_is_the_cosine_of_each_pair(tiny_model: Path) -> None:
    first, second, empty = embed(tiny_model, TEXTS[:3])
    found = similarities(str(tiny_model), [TEXTS[0], TEXTS[0], ""], [TEXTS[0], TEXTS[1], TEXTS[1]])
    assert found == pytest.approx([1.0, float(np.dot(first, second)), 0.0], abs=1e-5)
    assert found[1] < 0.999
    assert not empty.any()


def test_an_encoder_works_as_well_as_a_language_model(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import BertConfig, BertModel

    from slmops.models.load import load_tokenizer

    tokenizer = load_tokenizer(tiny_model)
    config = BertConfig(
        vocab_size=384, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert similarities(str(tmp_path), TEXTS, TEXTS) == pytest.approx([1, 1, 0, 1], abs=1e-5)
    alone, beside = embed(tmp_path, TEXTS[:1]), embed(tmp_path, TEXTS)
    assert beside[0] == pytest.approx(alone[0], abs=1e-5)


def test_a_model_has_to_be_named_and_found(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name one: the folder of an encoder"):
        similarities(None, ["a"], ["b"])
    with pytest.raises(ModelError):
        similarities(str(tmp_path / "no-model"), ["a"], ["b"])

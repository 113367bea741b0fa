"""The real SmolLM2, trimmed for a real set: what was said of it holds."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from slmops.errors import SlmopsError
from slmops.models.load import load_model, load_tokenizer
from slmops.models.resolve import resolve
from slmops.models.tokenmap import TokenMap
from slmops.models.vocabulary import Vocabulary, trim_vocabulary

pytestmark = pytest.mark.slow
NAME = "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def model() -> Path:
    try:
        return resolve(NAME).path
    except SlmopsError as error:
        pytest.skip(f"{NAME} cannot be fetched here: {error.what}")


def texts(shared_data: Path, split: str, count: int) -> list[str]:
    with (shared_data / "intent_banking77" / f"{split}.csv").open(encoding="utf-8") as file:
        return [row["text"] for row in csv.DictReader(file)][:count]


def test_texts_read_alike_and_logits_are_equal(model: Path, shared_data: Path, tmp_path: Path) -> None:
    import torch

    tokenizer = load_tokenizer(model)
    train, unseen = texts(shared_data, "train", 1000), texts(shared_data, "test", 300)
    vocabulary = Vocabulary.of(model, {token for ids in tokenizer(train)["input_ids"] for token in ids})
    assert len(vocabulary.missing) == 8
    trim_vocabulary(model, tmp_path, vocabulary.first(vocabulary.usual()))
    small = load_tokenizer(tmp_path)
    tokens = TokenMap.between(tokenizer, small)
    assert tokens.share_alike(train) == 1
    assert 0.4 < tokens.share_alike(unseen) < 1
    assert small.decode(small("😀 ðþ «Ω»")["input_ids"]) == "😀 ðþ «Ω»"

    ids = tokenizer(train[0])["input_ids"]
    kept = [number for number, new in enumerate(tokens.new_ids) if new >= 0]
    with torch.no_grad():
        whole = load_model(model)(torch.tensor([ids])).logits[..., kept]
        cut = load_model(tmp_path)(torch.tensor([tokens.moved(ids)])).logits[..., tokens.new_ids[kept]]
    assert torch.allclose(whole, cut, rtol=0, atol=1e-4)

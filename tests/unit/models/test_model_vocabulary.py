"""A model with fewer tokens reads the texts it was trimmed for as before, computes the same, and can still write any text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slmops.errors import ModelError
from slmops.files import read_json, write_json
from slmops.models.bpe import Bpe
from slmops.models.load import load_model, load_tokenizer, parameter_count, read_config
from slmops.models.tokenmap import TokenMap
from slmops.models.vocabulary import Vocabulary, trim_vocabulary
from slmops.testing.tiny import save_tiny_model, tiny_tokenizer

TEXTS = ["where is my parcel", "please refund the money"]
OTHER_TEXTS = ["the discount code does not work", "Straße 12,50 € 日本語 😀\n\tnaïve", "\x00\x7fΩ"]


def save(folder: Path, config: Any, tokenizer: Any) -> Path:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def byte_fallback_tokenizer() -> Any:
    """Tokens of characters with ``▁`` for spaces, and bytes for what is none of them: the kind of Gemma and Phi-3."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    names = [f"<0x{byte:02X}>" for byte in range(256)]
    learned = Tokenizer(models.BPE())
    learned.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=["<pad>", "<eos>", "<bos>", "<unk>", *names], show_progress=False)
    learned.train_from_iterator([*TEXTS, *OTHER_TEXTS[:1], "refund my discount"] * 3, trainer)
    data = json.loads(learned.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] not in names]
    data["model"] |= {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )


def gpt2(folder: Path) -> Path:
    from transformers import GPT2Config

    tokenizer = tiny_tokenizer()
    size = {"vocab_size": 400, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64, "tie_word_embeddings": False}
    ends = {"bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 399}
    return save(folder, GPT2Config(**size, **ends), tokenizer)


def gemma(folder: Path) -> Path:
    from transformers import Gemma3TextConfig

    tokenizer = byte_fallback_tokenizer()
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=64,
    )
    return save(folder, config, tokenizer)


@pytest.fixture(
    scope="module", params=[lambda folder: save_tiny_model(folder, layers=2), gpt2, gemma], ids=["llama", "gpt2", "gemma"]
)
def parent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    make: Callable[[Path], Path] = request.param
    return make(tmp_path_factory.mktemp("parent"))


@pytest.fixture(scope="module")
def trimmed(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trimmed to what the texts need, and ten common tokens."""
    target = tmp_path_factory.mktemp("trimmed")
    vocabulary = order_of(parent)
    trim_vocabulary(parent, target, vocabulary.first(vocabulary.smallest + 10))
    return target


def order_of(parent: Path, texts: list[str] = TEXTS) -> Vocabulary:
    return Vocabulary.of(parent, {number for text in texts for number in ids(parent, text)})


def ids(folder: Path, text: str) -> list[int]:
    return load_tokenizer(folder)(text, add_special_tokens=False)["input_ids"]


def test_texts_it_was_trimmed_for_have_the_same_tokens(parent: Path, trimmed: Path) -> None:
    tokens = TokenMap.between(load_tokenizer(parent), load_tokenizer(trimmed))
    assert not tokens.same
    assert tokens.share_alike(TEXTS) == 1
    assert tokens.share_alike([*TEXTS, OTHER_TEXTS[0]]) == pytest.approx(2 / 3)


def test_logits_of_kept_tokens_are_the_parents(parent: Path, trimmed: Path) -> None:
    import torch

    tokens = TokenMap.between(load_tokenizer(parent), load_tokenizer(trimmed))
    before = torch.tensor([ids(parent, TEXTS[0])])
    after = torch.tensor([tokens.moved(before[0].tolist())])
    kept = [number for number, new in enumerate(tokens.new_ids) if new >= 0]
    with torch.no_grad():
        whole, small = load_model(parent)(before).logits, load_model(trimmed)(after).logits
    assert torch.allclose(small[..., tokens.new_ids[kept]], whole[..., kept], rtol=0, atol=1e-6)


def test_any_text_can_be_written(trimmed: Path) -> None:
    tokenizer = load_tokenizer(trimmed)
    for text in [*TEXTS, *OTHER_TEXTS]:
        assert tokenizer.decode(ids(trimmed, text), clean_up_tokenization_spaces=False) == text


def test_the_vocabulary_is_closed_under_merges_and_numbered_without_gaps(trimmed: Path) -> None:
    bpe = Bpe.read(trimmed)
    assert sorted(bpe.ids.values()) == list(range(len(bpe.ids)))
    assert all(part in bpe.ids for token in bpe.ids for part in bpe.parts(token))
    assert all(left in bpe.vocab and right in bpe.vocab and left + right in bpe.vocab for left, right in bpe.merges)


def test_special_tokens_and_the_ids_in_the_configurations_are_the_same_tokens(parent: Path, trimmed: Path) -> None:
    before, after = load_tokenizer(parent), load_tokenizer(trimmed)
    assert (after.bos_token, after.eos_token, after.pad_token) == (before.bos_token, before.eos_token, before.pad_token)
    for name in ("config.json", "generation_config.json"):
        old, new = read_json(parent / name), read_json(trimmed / name)
        for key in ("bos_token_id", "eos_token_id"):
            one, two = ([value] if not isinstance(value, list) else value for value in (old.get(key), new.get(key)))
            assert [number and after.convert_ids_to_tokens(number) for number in two] == [
                number and before.convert_ids_to_tokens(number) for number in one
            ]


def test_the_size_is_what_was_asked_for(parent: Path, trimmed: Path) -> None:
    size = order_of(parent).smallest + 10
    assert read_config(trimmed)["vocab_size"] == size == load_model(trimmed).get_output_embeddings().weight.shape[0]
    assert parameter_count(trimmed) == load_model(trimmed).num_parameters() < parameter_count(parent)


def test_a_setting_that_names_no_token_is_emptied(tmp_path: Path) -> None:
    vocabulary = order_of(gpt2(tmp_path / "parent"))
    trim_vocabulary(tmp_path / "parent", tmp_path / "trimmed", vocabulary.first(vocabulary.smallest))
    assert read_config(tmp_path / "trimmed")["pad_token_id"] is None
    assert len(read_config(tmp_path / "trimmed")["eos_token_id"]) == 2


def without_tokens(parent: Path, target: Path, lost: set[str]) -> Path:
    """The same model with a tokenizer that has lost some tokens, as SmolLM2's lacks rare bytes."""
    save_tiny_model(target, layers=2)
    data = read_json(parent / "tokenizer.json")
    data["model"]["vocab"] = {token: number for token, number in data["model"]["vocab"].items() if token not in lost}
    data["model"]["merges"] = [merge for merge in data["model"]["merges"] if not lost & {*merge, "".join(merge)}]
    write_json(target / "tokenizer.json", data)
    return target


def test_bytes_that_the_tokenizer_lacks_are_added_and_never_the_likeliest(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    parent = without_tokens(tiny_model, tmp_path / "parent", {"ð", "Ħ"})  # 0xF0, which emoji begin with, and 0x06
    assert "😀" not in load_tokenizer(parent).decode(ids(parent, "a😀b"))
    vocabulary = order_of(parent)
    assert vocabulary.missing == ("Ħ", "ð")
    trim_vocabulary(parent, tmp_path / "trimmed", vocabulary.first(vocabulary.usual()))
    tokenizer, model = load_tokenizer(tmp_path / "trimmed"), load_model(tmp_path / "trimmed")
    assert tokenizer.decode(ids(tmp_path / "trimmed", "a😀b")) == "a😀b"
    new = tokenizer.convert_tokens_to_ids(["Ħ", "ð"])
    own = tokenizer.convert_tokens_to_ids([token for token in Bpe.read(parent).byte_tokens if token not in ("Ħ", "ð")])
    table = model.get_input_embeddings().weight
    assert torch.allclose(table[new], table[own].mean(0).expand(2, -1), atol=1e-6)
    with torch.no_grad():
        likeliest = model(torch.arange(200).reshape(10, 20)).logits.argmax(-1)
    assert not set(likeliest.flatten().tolist()) & set(new)


def test_weights_of_two_bytes_keep_their_type(tiny_model: Path, tmp_path: Path) -> None:
    import torch

    parent = without_tokens(tiny_model, tmp_path / "parent", {"ð"})
    load_model(parent, dtype="bfloat16").save_pretrained(parent)
    vocabulary = order_of(parent)
    trim_vocabulary(parent, tmp_path / "trimmed", vocabulary.first(vocabulary.smallest))
    model = load_model(tmp_path / "trimmed", dtype="bfloat16")
    kept = load_tokenizer(tmp_path / "trimmed").convert_tokens_to_ids("refund")
    number = load_tokenizer(parent).convert_tokens_to_ids("refund")
    whole = load_model(parent, dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert model.get_input_embeddings().weight[kept].equal(whole.get_input_embeddings().weight[number])


def test_what_is_needed_comes_first_then_what_was_merged_first(tiny_model: Path) -> None:
    vocabulary = order_of(tiny_model)
    merges = ["".join(merge) for merge in Bpe.read(tiny_model).merges]
    common = vocabulary.tokens[vocabulary.needed :]
    used = load_tokenizer(tiny_model).tokenize(TEXTS[0])
    assert {*used, "<|im_start|>", "Ġ", "A"} <= set(vocabulary.tokens[: vocabulary.needed])
    assert list(common) == [token for token in merges if token in common]
    assert order_of(tiny_model, [*TEXTS, OTHER_TEXTS[0]]).needed > vocabulary.needed


def test_a_size_that_the_texts_do_not_fit_into_is_refused(tiny_model: Path) -> None:
    vocabulary = order_of(tiny_model)
    with pytest.raises(ModelError, match=f"the texts need {vocabulary.smallest}"):
        vocabulary.first(vocabulary.smallest - 1)


def test_tokens_that_only_hold_a_place_go_and_an_encoding_of_whole_words_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    data = read_json(tiny_model / "tokenizer.json")
    data["added_tokens"] += [{**data["added_tokens"][0], "id": 384 + n, "content": f"<unused{n}>"} for n in range(3)]
    write_json(tmp_path / "tokenizer.json", data)
    assert not [token for token in Bpe.read(tmp_path).always_kept() if token.startswith("<unused")]
    write_json(tmp_path / "tokenizer.json", {**data, "model": {"type": "WordPiece", "vocab": {}}})
    with pytest.raises(ModelError, match="WordPiece"):
        Bpe.read(tmp_path)


def test_several_merges_that_make_one_token_need_only_the_one_that_is_done(tmp_path: Path) -> None:
    """Llama 3 lists all ways to make a token; a text only ever goes one of them."""
    merges = [["b", "c"], ["a", "bc"], ["a", "b"], ["ab", "c"]]
    vocab = {token: number for number, token in enumerate(["a", "b", "c", "bc", "abc", "ab"])}
    model = {"type": "BPE", "vocab": vocab, "merges": merges}
    write_json(tmp_path / "tokenizer.json", {"model": model, "decoder": {"type": "ByteLevel"}})
    assert Bpe.read(tmp_path).parts("abc") == ["a", "b", "c", "bc", "abc"]

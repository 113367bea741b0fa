"""The architectures of the catalogue's families: the smallest random checkpoint of each is loaded, cut, trimmed and trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from slmops.data.rows import Row
from slmops.data.templates import choose_template
from slmops.errors import ModelError, UsageError
from slmops.files import read_json, write_json
from slmops.models.catalogue import CATALOGUE, family
from slmops.models.depth import cut_depth
from slmops.models.load import load_model, load_tokenizer, parameter_count, read_config
from slmops.models.resolve import find, resolve
from slmops.models.shrink import Wish, cut_model, plan_cut
from slmops.sections import AskedSection, TrainingSection
from slmops.teachers.spec import spec_of
from slmops.testing.tiny import tiny_tokenizer
from slmops.training.loop import train
from tests.unit.models.test_model_vocabulary import byte_fallback_tokenizer, save

SIZE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 1}
ROWS = [Row.of(f"where is my parcel {number}", "refund", origin=f"row {number}") for number in range(6)]


def llama(ends: dict[str, int]) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**SIZE, **ends, tie_word_embeddings=False, max_position_embeddings=64)


def smollm2(ends: dict[str, int]) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**SIZE, **ends, tie_word_embeddings=True, max_position_embeddings=64)


def qwen2(ends: dict[str, int]) -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(**SIZE, **ends, tie_word_embeddings=True, max_position_embeddings=64)


def phi3(ends: dict[str, int]) -> Any:
    """Its projections are fused: query, key and value in one, gate and up in one."""
    from transformers import Phi3Config

    return Phi3Config(**SIZE, **ends, tie_word_embeddings=False, max_position_embeddings=64, sliding_window=2047)


def phi4(ends: dict[str, int]) -> Any:
    """Phi-3's architecture with angles for a part of a head, in two lengths of context."""
    from transformers import Phi3Config

    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 6, "long_factor": [2.0] * 6}
    rope |= {"partial_rotary_factor": 0.75, "original_max_position_embeddings": 32}
    lengths = {"max_position_embeddings": 64, "original_max_position_embeddings": 32}
    return Phi3Config(**SIZE, **ends, **lengths, tie_word_embeddings=True, rope_parameters=rope)


def gemma3(ends: dict[str, int]) -> Any:
    from transformers import Gemma3TextConfig

    return Gemma3TextConfig(**SIZE, **ends, head_dim=16, max_position_embeddings=64, sliding_window=8)


@pytest.fixture(params=[llama, smollm2, qwen2, phi3, phi4, gemma3], ids=lambda make: make.__name__)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    make: Callable[[dict[str, int]], Any] = request.param
    tokenizer = byte_fallback_tokenizer() if make in (phi3, gemma3) else tiny_tokenizer()
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    return save(tmp_path / "checkpoint", make({"vocab_size": 512, **ends}), tokenizer)


def test_it_is_loaded_cut_trimmed_trained_and_saved(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slmops.models.vocabulary.MARGIN", 10)
    found = resolve(checkpoint)
    template = choose_template(load_tokenizer(found.path), "plain")
    rows = template.token_ids(ROWS)
    plan = plan_cut(found.path, Wish(layers=2, keep="importance", vocabulary="trim"), rows=rows)
    cut_model(found.path, tmp_path / "student", plan, tmp_path / "work")
    student = choose_template(load_tokenizer(tmp_path / "student"), "plain")
    section = TrainingSection(max_steps=2, batch_size=3, learning_rate=0.01, precision="float32")
    options = {"template": student, "rows": ROWS, "validation": ROWS[:2], "section": section, "seed": 0, "what": "student"}
    trained = train(tmp_path / "student", tmp_path / "trained", tmp_path / "training", **options)
    assert trained.steps == 2
    before, after = load_model(tmp_path / "student"), load_model(tmp_path / "trained")
    assert after.num_parameters() == parameter_count(tmp_path / "trained") == plan.figures()["cut"]["parameters"]
    assert read_config(tmp_path / "trained")["num_hidden_layers"] == 2
    assert not after.get_input_embeddings().weight.equal(before.get_input_embeddings().weight)
    assert resolve(tmp_path / "trained").parameters < found.parameters


def test_gemmas_global_layers_stay_global(tmp_path: Path) -> None:
    """The hub's configuration has a pattern, not a list of kinds."""
    tokenizer = byte_fallback_tokenizer()
    config = gemma3({"vocab_size": 512, "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0})
    config.num_hidden_layers, config.layer_types = 6, ["sliding_attention"] * 2 + ["full_attention"] + ["sliding_attention"] * 3
    config.layer_types[5] = "full_attention"
    source = save(tmp_path / "gemma", config, tokenizer)
    written = {key: value for key, value in read_json(source / "config.json").items() if "layer_types" not in key}
    write_json(source / "config.json", {**written, "sliding_window_pattern": 3})
    whole = load_model(source)
    assert whole.config.layer_types == config.layer_types
    cut_depth(source, tmp_path / "cut", [0, 2, 4, 5])
    cut = load_model(tmp_path / "cut")
    assert cut.config.layer_types == ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    whole.model.layers = torch.nn.ModuleList(whole.model.layers[number] for number in (0, 2, 4, 5))
    whole.config.num_hidden_layers, whole.config.layer_types = 4, cut.config.layer_types
    ids = torch.arange(30).reshape(1, 30)
    with torch.no_grad():
        assert cut(ids, use_cache=False).logits.equal(whole(ids, use_cache=False).logits)


@pytest.mark.parametrize(
    ("name", "members"),
    [
        ("qwen2.5", ["qwen2.5-0.5b-instruct", "qwen2.5-1.5b-instruct", "qwen2.5-3b-instruct", "qwen2.5-7b-instruct"]),
        ("gemma-3", ["gemma-3-270m", "gemma-3-270m-it", "gemma-3-1b-it"]),
        ("SmolLM2", ["smollm2-135m-instruct", "smollm2-360m-instruct", "smollm2-1.7b-instruct"]),
        ("phi-3-mini", ["phi-3-mini-4k", "phi-3-mini-128k"]),
        ("phi-4", []),
        ("qwen2.5-7b", []),
    ],
)
def test_a_family_has_its_members_smallest_first(name: str, members: list[str]) -> None:
    assert [entry.name for entry in family(name)] == members


def test_a_family_is_no_model_and_its_members_are_named() -> None:
    with pytest.raises(ModelError, match=r"'gemma-3' is a family of models, name one: gemma-3-270m \(268 M\), gemma-3-270m-it"):
        find("gemma-3")
    with pytest.raises(UsageError, match=r"'qwen2\.5' is a family"):
        _ = spec_of(AskedSection(model="qwen2.5")).members[0].kind


@pytest.mark.parametrize(
    "name", ["phi-4-mini", "phi-3-mini-4k", "phi-3-mini-128k", "phi-3.5-mini", "llama-3.1-8b", "qwen2.5-0.5b", "smollm2-135m"]
)
def test_the_names_people_use_lead_to_a_model(name: str) -> None:
    found = find(name)
    assert found.parameters in {entry.parameters for entry in CATALOGUE.values()}

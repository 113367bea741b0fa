"""How big a cut is, before it is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmops.errors import ConfigError
from slmops.models.depth import cut_depth, uniform_layers
from slmops.models.load import parameter_count
from slmops.models.resolve import Pending, resolve
from slmops.models.sizes import Anatomy, Target, parameters_after_cut


@pytest.mark.parametrize("layers", [2, 3])
def test_a_cut_has_about_the_size_that_was_said(tiny_model: Path, tmp_path: Path, layers: int) -> None:
    cut_depth(tiny_model, tmp_path / "cut", uniform_layers(4, layers))
    assert parameters_after_cut(resolve(tiny_model), layers) == pytest.approx(parameter_count(tmp_path / "cut"), rel=1e-3)


@pytest.mark.parametrize("layers", [None, 4, 9])
def test_without_a_cut_it_is_the_model_itself(tiny_model: Path, layers: int | None) -> None:
    assert parameters_after_cut(resolve(tiny_model), layers) == parameter_count(tiny_model)


def test_for_a_model_that_is_not_here_yet_it_is_a_guess() -> None:
    def pending(parameters: int | None) -> Pending:
        return Pending("owner/name", "owner/name", None, None, parameters)

    assert parameters_after_cut(pending(1000), None) == 1000
    assert 0 < parameters_after_cut(pending(1000), 2) < 1000
    assert parameters_after_cut(pending(None), None) == 0


@pytest.mark.parametrize(
    ("text", "unit", "value"), [("30M", "parameters", 3e7), ("1.5b", "parameters", 1.5e9), ("20 MB", "MB", 20), ("0.1s", "ms", 100)]
)
def test_a_target_is_a_number_of_weights_a_size_or_a_time(text: str, unit: str, value: float) -> None:
    assert (Target.parse(text).unit, Target.parse(text).value) == (unit, pytest.approx(value))


@pytest.mark.parametrize("text", ["20", "MB", "20 XB", "0MB", "-3M"])
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no target"):
        Target.parse(text)


def test_a_target_bounds_the_size_before_the_model_is_here(tiny_model: Path) -> None:
    pending = Pending("owner/name", "owner/name", None, None, 10**9)
    assert parameters_after_cut(pending, None, "1M") == 10**6
    assert parameters_after_cut(resolve(tiny_model), None, "10K") == 10**4
    assert parameters_after_cut(resolve(tiny_model), 2, "20MB") == parameters_after_cut(resolve(tiny_model), 2)


@pytest.mark.parametrize("tied", [True, False])
def test_the_parts_add_up_to_the_model(tmp_path: Path, tied: bool) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=100, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2, tie_word_embeddings=tied
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    anatomy = Anatomy.of(tmp_path)
    assert (anatomy.layers, anatomy.vocabulary, anatomy.token, anatomy.rest) == (3, 100, 16 if tied else 32, 16)
    assert anatomy.parameters(3, 100) == parameter_count(tmp_path)
    assert anatomy.parameters(3, 100) - anatomy.parameters(3, 90) == 10 * anatomy.token
    assert anatomy.megabytes(3, 100, "float32") == pytest.approx(4e-6 * parameter_count(tmp_path))
    more = anatomy.megabytes(3, 100, "int4") - anatomy.megabytes(3, 90, "int4")
    assert more == pytest.approx(10 * 16 * (0.640625 if tied else 4.640625) / 1e6)

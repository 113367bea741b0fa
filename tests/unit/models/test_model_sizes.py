"""How big a cut is, before it is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmops.models.depth import cut_depth, uniform_layers
from slmops.models.load import parameter_count
from slmops.models.resolve import Pending, resolve
from slmops.models.sizes import parameters_after_cut


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

"""Layers that copy: what their heads attend to, and which layers a cut then keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from slmops.errors import ModelError, SlmopsError
from slmops.models.copying import Copying, _seen, copying_layers, copying_of, describe_copying
from slmops.models.resolve import resolve
from slmops.models.shrink import Wish, plan_cut
from slmops.models.watching import Attended

LENGTH, BEGIN = 32, 1
TOTAL = BEGIN + 2 * LENGTH


def looking(*back: int | None, keys: int) -> Attended:
    """Heads that each look so many tokens back, or at all tokens alike."""
    queries = torch.zeros(2, TOTAL, len(back), TOTAL)
    for head, steps in enumerate(back):
        for place in range(steps if steps is not None else TOTAL, TOTAL):
            queries[:, place, head, place - steps] = 1000
    return Attended(queries, torch.eye(TOTAL)[None, :, None].expand(2, -1, keys, -1), torch.zeros(2, TOTAL, keys, 1))


@pytest.mark.parametrize("keys", [1, 2, 4])
def test_a_layer_copies_as_much_as_its_best_head(keys: int) -> None:
    seen = _seen(looking(None, 1, 0, LENGTH - 1, keys=keys))
    assert (seen.previous, seen.induction) == (pytest.approx(1), pytest.approx(1))
    only_back = _seen(looking(None, 1, 2, LENGTH, keys=keys))
    assert only_back.previous == pytest.approx(1)
    # The head that looks at all alike gives each of 33 to 65 tokens the same.
    assert 1 / TOTAL < only_back.induction < 1 / LENGTH


def test_what_comes_later_is_not_attended_to() -> None:
    queries = torch.zeros(1, TOTAL, 1, TOTAL)
    queries[:, : TOTAL - 1, 0, TOTAL - 1] = 1000
    seen = _seen(Attended(queries, torch.eye(TOTAL)[None, :, None], torch.zeros(1, TOTAL, 1, 1)))
    assert 1 / TOTAL < seen.previous < 1 / LENGTH


def test_the_layers_that_copy_stay_with_what_they_need() -> None:
    copying = [Copying(0.1, 0)] * 10
    copying[2], copying[4], copying[8] = Copying(0.7, 0), Copying(0.9, 0), Copying(0.95, 0.01)
    copying[5], copying[6] = Copying(0.3, 0.6), Copying(0.2, 0.8)
    assert copying_layers(copying, 2) == [4, 6]
    assert copying_layers(copying, 4) == [0, 1, 4, 6]
    assert copying_layers(copying, 6) == [0, 1, 4, 5, 6, 9]
    assert copying_layers(copying, 8) == [0, 1, 2, 3, 4, 5, 6, 9]
    assert "[4: 0.90/0.00]" in describe_copying(copying, [4])
    assert " 5: 0.30/0.60" in describe_copying(copying, [4])


@pytest.mark.parametrize("keep", [1, 11])
def test_a_depth_that_does_not_exist_is_refused(keep: int) -> None:
    with pytest.raises(ModelError, match="cannot keep"):
        copying_layers([Copying(0, 0)] * 10, keep)


def test_a_cut_is_planned_by_it(tiny_model: Path) -> None:
    plan = plan_cut(tiny_model, Wish(layers=3, keep="copying"))
    copying = copying_of(tiny_model)
    assert plan.copying == tuple(copying)
    assert list(plan.layers) == copying_layers(copying, 3)
    assert all(0 < share < 1 for layer in copying for share in (layer.previous, layer.induction))
    assert plan.as_dict()["copying"][0] == {"previous": copying[0].previous, "induction": copying[0].induction}
    assert describe_copying(copying, plan.layers) in plan.table()


@pytest.mark.slow
def test_smollm2_copies_in_layers_17_and_18(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLMOPS_CACHE")
    try:
        model = resolve("smollm2-135m-instruct").path
    except SlmopsError as error:
        pytest.skip(f"the model cannot be fetched here: {error.what}")
    plan = plan_cut(model, Wish(layers=6, keep="copying"))
    assert plan.copying is not None
    assert plan.layers == (0, 1, 16, 17, 18, 29)
    assert plan.copying[16].previous > 0.9
    assert plan.copying[17].induction > 0.7 < plan.copying[18].induction

"""What a target makes of a model: tokens go first, then layers, and the plan says what comes out."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import ModelError
from slmops.models.cutplan import CutPlan
from slmops.models.load import load_model, load_tokenizer, parameter_count, read_config
from slmops.models.shrink import Wish, cut_model, plan_cut
from slmops.models.sizes import Anatomy
from slmops.models.timing import Request, Timing, measure_parts, measure_request
from slmops.models.vocabulary import MARGIN
from slmops.testing.tiny import save_tiny_model

TEXTS = ("where is my parcel", "please refund the money")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), layers=6, hidden=16)


@pytest.fixture(scope="module")
def rows(model: Path) -> list[list[int]]:
    tokenizer = load_tokenizer(model)
    return [tokenizer(text)["input_ids"] for text in TEXTS]


@pytest.fixture(scope="module")
def anatomy(model: Path) -> Anatomy:
    return Anatomy.of(model)


@pytest.fixture(autouse=True)
def small_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slmops.models.vocabulary.MARGIN", 20)


def made(model: Path, folder: Path, plan: CutPlan) -> Path:
    cut_model(model, folder / "cut", plan, folder / "work")
    assert not list((folder / "work").glob("*"))
    return folder / "cut"


def test_the_margin_is_some_thousand_tokens() -> None:
    assert 2000 <= MARGIN <= 8192


@pytest.mark.parametrize(
    ("wish", "kept"),
    [
        (Wish(layers=3), [0, 1, 2]),
        (Wish(layers=3, keep="uniform"), [0, 3, 5]),
        (Wish(keep=(0, 4, 5)), [0, 4, 5]),
    ],
)
def test_layers_alone(model: Path, tmp_path: Path, wish: Wish, kept: list[int]) -> None:
    plan = plan_cut(model, wish)
    assert (list(plan.layers), plan.vocabulary, plan.tokens) == (kept, 384, None)
    assert read_config(made(model, tmp_path, plan))["num_hidden_layers"] == 3


def test_layers_are_chosen_by_importance(model: Path, rows: list[list[int]]) -> None:
    plan = plan_cut(model, Wish(layers=3, keep="importance"), rows=rows)
    assert plan.influence is not None
    assert min(plan.influence[number] for number in plan.layers) >= max(
        value for number, value in enumerate(plan.influence) if number not in plan.layers
    )


def test_what_comes_out_is_what_the_plan_said(model: Path, rows: list[list[int]], tmp_path: Path) -> None:
    plan = plan_cut(model, Wish(layers=2, vocabulary="trim"), rows=rows)
    folder = made(model, tmp_path, plan)
    said = plan.figures()["cut"]
    assert (said["layers"], said["vocabulary"], said["parameters"]) == (2, plan.needed + 20, parameter_count(folder))
    assert load_model(folder).num_parameters() == said["parameters"]
    size = sum((folder / name).stat().st_size for name in ("model.safetensors", "tokenizer.json"))
    assert size == pytest.approx(said["mb"]["float32"] * 1e6, rel=0.1)


def test_a_target_takes_tokens_before_layers(model: Path, rows: list[list[int]], anatomy: Anatomy) -> None:
    whole = anatomy.parameters(6, 384)
    plan = plan_cut(model, Wish(target=_k(whole - 1000)), rows=rows)
    assert (len(plan.layers), plan.vocabulary) == (6, 384 - 63)
    less = plan_cut(model, Wish(target=_k(anatomy.parameters(4, plan.needed + 20) + 60)), rows=rows)
    assert len(less.layers) == 4
    assert less.vocabulary == plan.needed + 20 + 60 // 16


def _k(parameters: int) -> str:
    return f"{parameters / 1000}K"


def test_the_margin_shrinks_where_two_layers_do_not_fit(model: Path, rows: list[list[int]], anatomy: Anatomy) -> None:
    needed = plan_cut(model, Wish(layers=2, vocabulary="trim"), rows=rows).needed
    assert needed is not None
    plan = plan_cut(model, Wish(target=_k(anatomy.parameters(2, needed + 5))), rows=rows)
    assert (len(plan.layers), plan.vocabulary) == (2, needed + 5)


def test_a_target_that_cannot_be_reached_says_what_can(model: Path, rows: list[list[int]], anatomy: Anatomy) -> None:
    needed = plan_cut(model, Wish(layers=2, vocabulary="trim"), rows=rows).needed
    assert needed is not None
    with pytest.raises(ModelError, match=f"smallest cut has 2 layers, {needed} tokens and {anatomy.parameters(2, needed):,} param"):
        plan_cut(model, Wish(target="1K"), rows=rows)
    with pytest.raises(ModelError, match=r"384 tokens(?s:.*)give rows with --data"):
        plan_cut(model, Wish(target="1K"))


def test_a_model_that_is_small_enough_stays_whole(model: Path, rows: list[list[int]], tmp_path: Path) -> None:
    plan = plan_cut(model, Wish(target="20MB"), rows=rows)
    assert (list(plan.layers), plan.vocabulary, plan.tokens) == (list(range(6)), 384, None)
    assert parameter_count(made(model, tmp_path, plan)) == parameter_count(model)


def test_a_vocabulary_that_is_to_be_trimmed_is_also_where_the_target_allows_more(model: Path, rows: list[list[int]]) -> None:
    plan = plan_cut(model, Wish(target="20MB", vocabulary="trim"), rows=rows)
    assert (len(plan.layers), plan.vocabulary) == (6, plan.needed + 20)


def test_megabytes_are_those_of_the_package(model: Path, rows: list[list[int]], anatomy: Anatomy) -> None:
    megabytes = anatomy.megabytes(3, 384, "int8")
    plan = plan_cut(model, Wish(target=f"{megabytes:.6f}MB", precision="int8"), rows=rows)
    assert plan.figures()["cut"]["mb"]["int8"] <= megabytes + 0.005
    smaller = plan_cut(model, Wish(target=f"{megabytes:.6f}MB", precision="int4"), rows=rows)
    assert smaller.figures()["cut"]["parameters"] >= plan.figures()["cut"]["parameters"]


def test_a_time_is_reached_by_what_was_measured_of_the_parts(model: Path, rows: list[list[int]]) -> None:
    plan = plan_cut(model, Wish(target="10ms", vocabulary="all"), rows=rows, time_parts=parts_of)
    assert (len(plan.layers), plan.vocabulary) == (2, 384)
    with pytest.raises(ModelError, match=r"smallest cut has 2 layers, 384 tokens and 8\.84 ms"):
        plan_cut(model, Wish(target="8ms", vocabulary="all"), time_parts=parts_of)


def parts_of(_model: Path, request: Request) -> Timing:
    return Timing(request, layer=2.0, token=0.01, rest=1.0, whole=16.84)


def test_the_request_that_is_timed_is_as_long_as_the_rows(template: Template) -> None:
    rows = [Row.of("where is my parcel", "delivery"), Row.of("please refund the money", None), Row.of("hi", "refund")]
    lengths = sorted(len(template.prompt_ids(row)) for row in rows)
    assert Request.of(template, rows) == Request(lengths[1], len(template.encode(rows[2]).answer_ids))
    assert Request.of(template, rows[1:2]) == Request(len(template.prompt_ids(rows[1])), 16)
    assert Request.of(template, []) == Request(64, 16)


def test_the_parts_of_a_measured_time_add_up(model: Path) -> None:
    timing = measure_parts(model, Request(8, 2))
    assert timing.of(6, 384) == pytest.approx(timing.whole, rel=0.5)
    assert timing.layer > 0
    assert measure_request(model, Request(8, 2)) > 0


def test_the_plan_is_a_table_and_says_how_times_were_taken(model: Path, rows: list[list[int]]) -> None:
    plan = plan_cut(model, Wish(target="14ms"), rows=rows, time_parts=parts_of)
    lines = plan.table().splitlines()
    assert " ".join(lines[0].split()) == "layers vocabulary parameters MB float32 MB int8 MB int4 ms (estimate)"
    assert lines[1].split()[:3] == ["parent", "6", "384"]
    assert lines[2].split()[0] == "cut"
    assert float(lines[2].split()[-1]) <= 14
    assert "answered with 16, PyTorch, float32" in lines[-1]
    assert "needed" in plan.table()


@pytest.mark.parametrize(
    ("wish", "problem"),
    [
        (Wish(layers=7), "there are 6 layers"),
        (Wish(vocabulary="trim"), "no text says which"),
        (Wish(vocabulary=100), "a vocabulary of 100 tokens"),
        (Wish(layers=3, keep="importance"), "no text to measure"),
    ],
)
def test_what_cannot_be_cut_is_refused(model: Path, wish: Wish, problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        plan_cut(model, wish)


def test_leftovers_of_a_killed_cut_do_no_harm(model: Path, rows: list[list[int]], tmp_path: Path) -> None:
    plan = plan_cut(model, Wish(layers=2, vocabulary="trim"), rows=rows)
    shutil.copytree(model, tmp_path / "work" / "shallow")
    assert parameter_count(made(model, tmp_path, plan)) == plan.figures()["cut"]["parameters"]

"""The training loop on a tiny model: what it writes, sets aside and refuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import ConfigError, TrainingError
from slmops.models.load import load_model
from slmops.sections import LoraSection, TrainingSection
from slmops.signals.distribution import Distribution
from slmops.signals.sampled import Sampled
from slmops.signals.store import SignalStore, row_key, write_signals
from slmops.signals.topk import TopK
from slmops.training import loop
from slmops.training.batches import collate
from slmops.training.forward import answers_of
from slmops.training.inputs import open_student
from slmops.training.loop import Trained, train
from slmops.training.watching import looked_at
from tests.interruptions import interrupted_in

LABELS = ("delivery", "refund of the money", "account")
ROWS = [Row.of(f"question {number}" + " please" * (number % 4), LABELS[number % 3], f"rows.csv:{number}") for number in range(8)]
Train = Callable[..., Trained]


@pytest.fixture
def run(tiny_model: Path, template: Template, tmp_path: Path) -> Train:
    """Train into ``tmp_path/NAME`` with the sections' values given."""

    def call(
        name: str = "model",
        rows: Sequence[Row] = ROWS,
        validation: Sequence[Row] = (),
        signals: SignalStore | None = None,
        watch: loop.Watch | None = None,
        **values: Any,
    ) -> Trained:
        section = TrainingSection(**{"max_steps": 3, "batch_size": 4, "precision": "float32", **values})
        return train(
            tiny_model,
            tmp_path / name,
            tmp_path / f"{name}-work",
            template=template,
            rows=rows,
            validation=validation,
            section=section,
            seed=1,
            what="trial",
            signals=signals,
            watch=watch,
        )

    return call


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in load_model(folder).state_dict().items()}


def logits(model: Any, template: Template) -> torch.Tensor:
    with torch.no_grad():
        pad = int(template.tokenizer.eos_token_id)
        return answers_of(model, collate([template.encode(row) for row in ROWS], pad)).logits


def test_the_loss_falls_and_the_result_is_a_model_with_its_tokenizer(run: Train, template: Template, tmp_path: Path) -> None:
    trained = run(max_steps=30, learning_rate=1e-2, validation=ROWS[:3])
    losses, validation = [point["loss"] for point in trained.curve], [point["validation"] for point in trained.curve]
    assert losses[0] == pytest.approx(math.log(384), rel=0.05)  # of a random model: even over the vocabulary
    assert losses[-1] < 1.5
    assert validation[-1] < 1.5 < validation[0]
    assert trained.curve[-1]["step"] == trained.steps == 30
    loaded = load_model(tmp_path / "model")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert (tmp_path / "model" / "tokenizer.json").is_file()
    right = logits(loaded, template).argmax(-1)
    expected = torch.tensor([token for row in ROWS for token in template.encode(row).answer_ids])
    assert (right == expected).float().mean() > 0.7


@pytest.mark.parametrize("lora", [None, LoraSection(dropout=0.5)])
def test_the_validation_loss_is_the_mean_over_answer_tokens_without_dropout(
    run: Train, template: Template, tmp_path: Path, lora: LoraSection | None
) -> None:
    (*_, last) = run(learning_rate=1e-2, validation=ROWS[:5], lora=lora).curve
    model = load_model(tmp_path / "model")
    with torch.no_grad():
        answers = answers_of(model, collate([template.encode(row) for row in ROWS[:5]], 2))
    assert last["validation"] == pytest.approx(float(torch.nn.functional.cross_entropy(answers.logits, answers.labels)), rel=1e-4)


def test_the_facts_count_the_trained_tokens(run: Train, template: Template) -> None:
    """Two epochs of two batches each."""
    tokens = sum(len(template.encode(row).answer_ids) for row in ROWS)
    trained = run(max_steps=None, epochs=2)
    assert (trained.steps, trained.answer_tokens, trained.too_long) == (4, 2 * tokens, 0)


def test_four_accumulated_batches_of_two_train_as_one_of_eight(run: Train, tiny_model: Path, tmp_path: Path) -> None:
    """All eight rows stand in each update either way; their answers differ in length, so batches weigh by tokens.

    Adam hides a wrong scale of the gradient, so the reported loss is compared as well.
    """
    whole = run("whole", batch_size=8, gradient_accumulation_steps=1)
    parts = run("parts", batch_size=2, gradient_accumulation_steps=4)
    assert [point["loss"] for point in parts.curve] == pytest.approx([point["loss"] for point in whole.curve], rel=1e-4)
    assert parts.answer_tokens == whole.answer_tokens
    start, a, b = weights(tiny_model), weights(tmp_path / "whole"), weights(tmp_path / "parts")
    moved = torch.stack([(a[name] - start[name]).norm() for name in a]).norm()
    apart = torch.stack([(a[name] - b[name]).norm() for name in a]).norm()
    assert apart < 0.02 * moved


def test_a_merged_adapter_gives_the_adapters_logits(
    run: Train, template: Template, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora import LoraModel

    merge, with_adapter = LoraModel.merge_and_unload, []

    def merge_after_a_look(model: Any, *arguments: Any, **options: Any) -> Any:
        with_adapter.append(logits(model.model.eval(), template))
        return merge(model, *arguments, **options)

    monkeypatch.setattr(LoraModel, "merge_and_unload", merge_after_a_look)
    run(lora=LoraSection(r=4, alpha=8), learning_rate=1e-2)
    merged = logits(load_model(tmp_path / "model"), template)
    torch.testing.assert_close(merged, with_adapter[0], atol=1e-5, rtol=1e-5)
    assert (merged - logits(load_model(tiny_model), template)).abs().max() > 0.1

    before, after = weights(tiny_model), weights(tmp_path / "model")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "proj" in name}


@pytest.mark.parametrize("bits", [4, 8])
def test_on_few_bits_the_rest_lies_in_the_type_of_autocast_and_an_adapter_learns_as_well(
    run: Train, tiny_model: Path, bits: int
) -> None:
    falls = {}
    for precision, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        values: dict[str, Any] = {"lora": LoraSection(r=4, bits=bits), "precision": precision}
        student = open_student(tiny_model, TrainingSection(**values))
        assert {one.dtype for name, one in student.named_parameters() if "embed_tokens" in name or "norm" in name} == {dtype}
        assert {one.dtype for one in student.parameters() if one.requires_grad} == {torch.float32}
        curve = run(precision, max_steps=30, learning_rate=1e-2, validation=ROWS[:3], **values).curve
        falls[precision] = float(curve[0]["validation"] or math.nan) - float(curve[-1]["validation"] or math.nan)
    assert 0.2 < falls["bfloat16"] == pytest.approx(falls["float32"], rel=0.1)


def test_frozen_embeddings_stay_as_they_are(run: Train, tiny_model: Path, tmp_path: Path) -> None:
    run(freeze_embeddings=True)
    before, after = weights(tiny_model), weights(tmp_path / "model")
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {"model.embed_tokens.weight", "lm_head.weight"}


def test_long_rows_are_set_aside_and_never_cut(run: Train, template: Template) -> None:
    long = Row.of("please " * 60, "delivery")
    trained = run(rows=[*ROWS, long], max_length=60, max_steps=None, epochs=1, batch_size=3)
    assert trained.too_long == 1
    assert trained.answer_tokens == sum(len(template.encode(row).answer_ids) for row in ROWS)


def test_rows_that_are_all_too_long_are_an_error(run: Train) -> None:
    with pytest.raises(TrainingError, match=r"trial: no row is left to train on\n.*raise max_length \(now 8\)"):
        run(max_length=8)


def test_a_loss_that_is_not_finite_is_an_error(run: Train, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is nan at update \d+\n.*lower learning_rate"):
        run(learning_rate=1e30, max_steps=6, max_grad_norm=1e30)
    assert not (tmp_path / "model").exists()


def test_an_objective_that_needs_signals_does_not_start_without(run: Train) -> None:
    with pytest.raises(TrainingError, match="needs the teacher's signals and there are none"):
        run(objectives=({"name": "forward_kl"},))


def store_of(folder: Path, signals: dict[str, Distribution]) -> SignalStore:
    return write_signals(folder, signals.items(), {})


def test_a_teacher_with_another_tokenizer_teaches_by_uld_alone(run: Train, template: Template, tmp_path: Path) -> None:
    """Its answers have a token more, or fewer, than the student's."""
    generator = torch.Generator().manual_seed(0)
    tokens = [len(template.encode(row).answer_ids) + (1, -1)[number % 2] for number, row in enumerate(ROWS)]
    other = [TopK.from_logits(3 * torch.randn(count, 900, generator=generator), 5) for count in tokens]
    signals = store_of(tmp_path / "signals", {row_key(row): signal for row, signal in zip(ROWS, other, strict=True)})
    with pytest.raises(TrainingError, match=r"rows.csv:0: \d+ signal positions for \d+ answer tokens\n.*use uld"):
        run(objectives=({"name": "uld"}, {"name": "jsd"}), signals=signals)
    trained = run(
        objectives=({"name": "uld"}, {"name": "cross_entropy", "weight": 0.1}), signals=signals, max_steps=12, learning_rate=1e-2
    )
    assert trained.curve[-1]["loss"] < 0.9 * trained.curve[0]["loss"]


def test_an_objective_that_is_not_for_sampled_tokens_does_not_start(run: Train, template: Template, tmp_path: Path) -> None:
    counts = {row_key(row): len(template.encode(row).answer_ids) for row in ROWS}
    drawn = {key: Sampled.from_logits(torch.zeros(count, 384), 4, np.full(count, 0.5)) for key, count in counts.items()}
    signals = store_of(tmp_path / "signals", drawn)
    with pytest.raises(ConfigError, match=r"reverse_kl is not defined for tokens sampled.*\n.*forward_kl with kd_temperature 1"):
        run(objectives=({"name": "cross_entropy"}, {"name": "reverse_kl"}), signals=signals)
    assert not list(tmp_path.glob("model*"))
    assert run(objectives=({"name": "forward_kl"},), signals=signals).steps == 3


def test_the_global_random_state_does_not_matter(run: Train, tmp_path: Path) -> None:
    torch.manual_seed(1)
    run("first", lora=LoraSection(dropout=0.2))
    torch.manual_seed(2)
    run("second", lora=LoraSection(dropout=0.2))
    assert (tmp_path / "first/model.safetensors").read_bytes() == (tmp_path / "second/model.safetensors").read_bytes()


def test_the_allocator_setting_is_harmless() -> None:
    from slmops.training.machine import autocast_type, keep_freed_memory

    keep_freed_memory()
    assert autocast_type("float32") is None
    assert autocast_type("bfloat16") is torch.bfloat16
    assert autocast_type("auto") in (None, torch.bfloat16)


@pytest.mark.parametrize(
    ("function", "call"),
    [("total_loss", 5), ("mark_complete", 4)],
    ids=["in the fifth update", "with the fourth checkpoint half-written"],
)
def test_an_interrupted_run_goes_on_to_the_same_bytes_and_curve(
    run: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, call: int, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"max_steps": 6, "checkpoint_seconds": 0, "lora": LoraSection(dropout=0.2), "validation": ROWS[:2]}
    whole = run("whole", **{**options, "checkpoint_seconds": 1e9})
    assert not list((tmp_path / "whole-work").glob("checkpoint-*"))

    with interrupted_in(monkeypatch, call, function):
        run("model", **options)
    newest = tmp_path / "model-work" / "checkpoint-4"
    assert (newest / "trainer_state.json").is_file()
    if function == "mark_complete":
        assert not (newest / "complete").exists()
        (newest / "optimizer.pt").write_bytes(b"")

    capsys.readouterr()
    resumed = run("model", **options)
    assert (tmp_path / "model/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
    assert resumed.curve == whole.curve
    assert len(resumed.curve) == 6
    assert "trial: 6/6 updates" in capsys.readouterr().err
    assert len(list((tmp_path / "model-work").glob("checkpoint-*"))) == 2


def test_who_watches_is_told_the_validation_losses_and_may_end_it(run: Train, tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []
    trained = run(max_steps=16, validation=ROWS[:3], watch=lambda share, loss: seen.append((share, loss)))
    assert [share for share, _ in seen] == [step / 8 for step in range(1, 9)]
    assert [loss for _, loss in seen] == [point["validation"] for point in trained.curve]

    def end(share: float, loss: float) -> None:
        if share >= 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("ended", max_steps=16, validation=ROWS[:3], watch=end)
    assert not (tmp_path / "ended").exists()


def test_of_many_validation_rows_an_even_part_is_looked_at() -> None:
    many = [Row.of(f"question {number}", "delivery") for number in range(1000)]
    section = TrainingSection(batch_size=16)
    assert looked_at(many[:32], 1, section) == many[:32]
    assert looked_at(many, 80, section) == [many[number * 1000 // 80] for number in range(80)]  # half of 10 updates of 16 rows
    assert len(looked_at(many, 1, section)) == 32
    assert looked_at(many, 10_000, section) == many


# Answers that no training row has: what helps on these soon harms here.
AGAINST = [Row.of(row.question, "the discount code", f"held-out.csv:{number}") for number, row in enumerate(ROWS[:3])]
OVERFITTING: dict[str, Any] = {"max_steps": 40, "learning_rate": 1e-2, "batch_size": 8, "validation": AGAINST}


def validation_loss(folder: Path, template: Template) -> float:
    batch = collate([template.encode(row) for row in AGAINST], int(template.tokenizer.eos_token_id))
    with torch.no_grad():
        answers = answers_of(load_model(folder), batch)
    return float(torch.nn.functional.cross_entropy(answers.logits, answers.labels))


@pytest.mark.parametrize(("lora", "rate"), [(None, 1e-2), (LoraSection(r=4), 0.1)], ids=["full", "lora"])
def test_the_weights_with_the_lowest_validation_loss_are_kept(
    run: Train, template: Template, tmp_path: Path, lora: LoraSection | None, rate: float
) -> None:
    options = {**OVERFITTING, "lora": lora, "learning_rate": rate}
    last = run("last", **options)
    best = run("best", keep="best", **options)
    losses = [point["validation"] for point in best.curve]
    assert losses == [point["validation"] for point in last.curve]
    lowest = min(losses)
    assert best.kept == best.curve[losses.index(lowest)]["step"] < best.steps == 40
    assert last.kept is None
    assert validation_loss(tmp_path / "best", template) == pytest.approx(lowest, rel=1e-4)
    assert validation_loss(tmp_path / "last", template) == pytest.approx(losses[-1], rel=1e-4)
    assert losses[-1] > lowest


def test_a_run_whose_validation_loss_only_rises_stops(run: Train, capsys: pytest.CaptureFixture[str]) -> None:
    trained = run(patience=2, **OVERFITTING)
    losses = [point["validation"] for point in trained.curve]
    assert len(losses) == losses.index(min(losses)) + 3 < 8
    assert trained.steps == trained.curve[-1]["step"] < 40
    assert f"stopped after update {trained.steps}" in capsys.readouterr().err
    assert 0 < trained.answer_tokens < run("whole", **OVERFITTING).answer_tokens


def test_a_run_that_stops_early_goes_on_to_the_same_bytes(run: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**OVERFITTING, "keep": "best", "patience": 2, "checkpoint_seconds": 0}
    whole = run("whole", **options)
    for call in (2, whole.steps - 1):  # the second time all is done but the last two updates
        with interrupted_in(monkeypatch, call, "mark_complete"):
            run(f"model-{call}", **options)
        resumed = run(f"model-{call}", **options)
        assert (resumed.curve, resumed.steps, resumed.kept) == (whole.curve, whole.steps, whole.kept)
        assert (tmp_path / f"model-{call}/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
    again = run("whole", **options)  # the stage was killed after the training and before its manifest
    assert (again.curve, again.steps) == (whole.curve, whole.steps)

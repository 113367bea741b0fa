"""A student learns from its teacher's layers, through projections that are trained with it, resumed with it and not kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import ConfigError, FingerprintError, TrainingError
from slmops.models.load import load_model
from slmops.sections import LoraSection, TrainingSection
from slmops.signals.forms import TopKForm
from slmops.signals.internals import Layers, RowInternals
from slmops.signals.store import SignalStore, write_signals
from slmops.teachers.local import LocalTeacher
from slmops.teachers.matching import MatchedLayers
from slmops.teachers.signals import internal_rows, signal_rows
from slmops.testing.tiny import save_tiny_model
from slmops.training.batches import collate
from slmops.training.forward import total_loss
from slmops.training.loop import Trained, train
from slmops.training.matching import LayerLosses
from slmops.training.objectives import WeightedSum
from slmops.training.projection import Projection
from tests.interruptions import interrupted_in

LABELS = ("delivery", "refund of the money", "account")
ROWS = [Row.of(f"question {number}" + " please" * (number % 4), LABELS[number % 3], f"rows.csv:{number}") for number in range(8)]
KEPT = Layers((1, 2, 3), (3,))
HIDDEN = {"name": "hidden_states", "measure": "relative"}
RELATIONS = {"name": "attention_relations"}
PAIRS = {"hidden_states": ((0, 1), (1, 3)), "attention_relations": ((1, 3),), "attention_maps": ((1, 3),)}
Train = Callable[..., Trained]


@pytest.fixture(scope="module")
def teacher(tiny_model: Path, template: Template) -> LocalTeacher:
    return LocalTeacher.load(tiny_model, template, "float32")


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of two layers that is half as wide as its teacher."""
    return save_tiny_model(tmp_path_factory.mktemp("narrow"), layers=2, hidden=32, seed=3)


@pytest.fixture(scope="module")
def signals(teacher: LocalTeacher, template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signals")
    write_signals(folder, signal_rows(teacher, ROWS, template, TopKForm(8), chunk_rows=3, work=folder / "work", layers=KEPT), {})
    write_signals(
        folder / "layers", internal_rows(ROWS, template, chunk_rows=3, work=folder / "work"), {"layers": KEPT.fingerprint}
    )
    return folder


def layers_of(signals: Path, template: Template, objectives: Sequence[dict[str, Any]], pairs: Any = None) -> MatchedLayers:
    store = SignalStore.open(signals / "layers", {"layers": KEPT.fingerprint})
    return MatchedLayers(store, KEPT, pairs or [PAIRS[one["name"]] for one in objectives if one["name"] in PAIRS], template)


@pytest.fixture
def run(narrow: Path, signals: Path, template: Template, tmp_path: Path) -> Train:
    def call(name: str = "model", objectives: Sequence[dict[str, Any]] = (HIDDEN,), base: Path = narrow, **values: Any) -> Trained:
        section = TrainingSection(
            **{"max_steps": 3, "batch_size": 4, "precision": "float32", "objectives": tuple(objectives), **values}
        )
        return train(
            base,
            tmp_path / name,
            tmp_path / f"{name}-work",
            template=template,
            rows=ROWS,
            validation=(),
            section=section,
            seed=1,
            what="trial",
            signals=SignalStore.open(signals, {}),
            layers=layers_of(signals, template, objectives),
        )

    return call


def losses_for(
    model: Any, signals: Path, template: Template, objectives: Sequence[dict[str, Any]], pairs: Any = None
) -> tuple[WeightedSum, LayerLosses]:
    loss, encoded = WeightedSum.of(objectives), [template.encode(row) for row in ROWS]
    source = layers_of(signals, template, objectives, pairs)
    return loss, LayerLosses.of(model, loss, source, ROWS, encoded, pad_id=0, seed=1)


def trained_on(
    model: Any, batches: Sequence[Sequence[int]], loss: WeightedSum, layers: LayerLosses, store: SignalStore, rows: Any
) -> Any:
    """The mean over all answer tokens of an update, and its gradients."""
    model.zero_grad()
    projection, value = Projection.of(model), 0.0
    count = sum(len(rows[number].answer_ids) for batch in batches for number in batch)
    for batch in batches:
        tensors = collate([rows[n] for n in batch], 0, [store.get(ROWS[n]) for n in batch], [layers.rows[n] for n in batch])
        part = total_loss(model, tensors, loss, projection, layers) / count
        part.backward()
        value += float(part.detach())
    return value, {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


EVERY = [{"name": "forward_kl"}, {**HIDDEN, "weight": 0.5}, {**RELATIONS, "weight": 2.0}, {"name": "attention_maps", "weight": 0.1}]


def test_an_update_is_the_same_in_one_batch_and_in_several(narrow: Path, signals: Path, template: Template) -> None:
    model, rows = load_model(narrow, attention="eager"), [template.encode(row) for row in ROWS]
    loss, layers = losses_for(model, signals, template, EVERY)
    store = SignalStore.open(signals, {})
    value, gradients = trained_on(model, [range(8)], loss, layers, store, rows)
    again, others = trained_on(model, [[5, 2], [0, 1, 3, 4], [7, 6]], loss, layers, store, rows)
    assert again == pytest.approx(value, rel=1e-5)
    assert any("layer_projections" in name for name in gradients)
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, atol=1e-6, rtol=1e-4)


def test_it_is_the_same_where_tokens_are_projected_in_chunks(
    narrow: Path, signals: Path, template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = load_model(narrow, attention="eager"), [template.encode(row) for row in ROWS]
    loss, layers = losses_for(model, signals, template, EVERY)
    store, found = SignalStore.open(signals, {}), []
    for values in (1 << 25, 384 * 5):
        monkeypatch.setattr("slmops.training.projection._CHUNK_VALUES", values)
        found.append(trained_on(model, [range(8)], loss, layers, store, rows))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-6)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", PAIRS)
def test_the_teacher_itself_has_nothing_to_learn(name: str, tiny_model: Path, signals: Path, template: Template) -> None:
    """Through the whole path: what was kept in float16 against the same model's own layers."""
    model, rows = load_model(tiny_model, attention="eager"), [template.encode(row) for row in ROWS]
    options = {"projection": True} if name == "hidden_states" else {}
    pairs = [[(number, number) for number in (getattr(KEPT, "hidden" if options else "attention"))]]
    loss, layers = losses_for(model, signals, template, [{"name": name, **options}], pairs)
    value, _ = trained_on(model, [range(8)], loss, layers, SignalStore.open(signals, {}), rows)
    assert abs(value) < 1e-5
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    moved, _ = trained_on(model, [range(8)], loss, layers, SignalStore.open(signals, {}), rows)
    assert moved > 100 * abs(value)


@pytest.mark.parametrize("objective", [HIDDEN, RELATIONS, {"name": "attention_maps"}], ids=lambda one: one["name"])
def test_a_student_comes_to_resemble_its_teacher_and_no_projection_is_saved(run: Train, objective: Any, tmp_path: Path) -> None:
    trained = run(objectives=[objective], max_steps=24, learning_rate=5e-3)
    assert float(trained.curve[-1]["loss"] or 0) < 0.7 * float(trained.curve[0]["loss"] or 0)
    model = load_model(tmp_path / "model")
    assert not [name for name in model.state_dict() if "projection" in name]
    assert model.config.hidden_size == 32


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "phi3", "gemma3_text"])
def test_every_family_is_zero_to_itself_and_learns_elsewhere(kind: str, template: Template, teacher: LocalTeacher) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 8}
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": 384, "num_key_value_heads": 2}
    torch.manual_seed(0)
    special |= {"query_pre_attn_scalar": 24} if kind == "gemma3_text" else {}
    config = AutoConfig.for_model(kind, **shape, **special, initializer_range=0.3)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    itself = LocalTeacher(type(teacher.runtime)(model, template.tokenizer, 256), template)
    encoded, kept = [template.encode(row) for row in ROWS], Layers((0, 2), (1, 2))
    signals, internals = itself.observe(encoded, TopKForm(8), kept)
    rows = [RowInternals(one, answer=True, whole=True) for one in internals]
    loss = WeightedSum.of([{"name": "hidden_states"}, RELATIONS, {"name": "attention_maps"}])
    pairs, by_row = [[(0, 0), (2, 2)], [(1, 1)], [(2, 2)]], {row.id: one for row, one in zip(ROWS, rows, strict=True)}
    source: Any = SimpleNamespace(layers=kept, pairs=pairs, get=lambda row: by_row[row.id])
    layers = LayerLosses.of(model, loss, source, ROWS, encoded, pad_id=0, seed=1)
    batch = collate(encoded, 0, signals, rows)
    total = total_loss(model, batch, loss, Projection.of(model), layers)
    assert abs(float(total.detach())) < 1e-3
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    found = []
    for _ in range(6):
        optimizer.zero_grad()
        total = total_loss(model, batch, loss, Projection.of(model), layers)
        total.backward()
        optimizer.step()
        found.append(float(total.detach()))
    assert found[0] > 1
    assert found[-1] < 0.8 * found[0]


def test_without_weight_nothing_of_the_layers_is_learned(run: Train, tmp_path: Path) -> None:
    run("plain", objectives=[{"name": "cross_entropy"}])
    rising = {"from": 0.0, "to": 0.0}
    run("beside", objectives=[{"name": "cross_entropy"}, {**HIDDEN, "weight": rising}, {**RELATIONS, "weight": rising}])
    run("more", objectives=[{"name": "cross_entropy"}, HIDDEN])
    plain, beside, more = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "beside", "more"))
    # Who looks at layers has the last one whole, which adds up in another order.
    assert all(torch.allclose(plain[name], beside[name], atol=1e-6) for name in plain)
    assert not all(torch.allclose(plain[name], more[name], atol=1e-4) for name in plain)


@pytest.mark.parametrize(
    ("lora", "function", "call"),
    [(None, "mark_complete", 2), (LoraSection(r=4, dropout=0.2), "total_loss", 3)],
    ids=["whole, in a checkpoint", "an adapter, in an update"],
)
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    run: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: LoraSection | None, function: str, call: int
) -> None:
    options: dict[str, Any] = {"max_steps": 4, "checkpoint_seconds": 0, "lora": lora, "objectives": [HIDDEN, RELATIONS]}
    whole = run("whole", **options)
    with interrupted_in(monkeypatch, call, function):
        run("model", **options)
    assert list((tmp_path / "model-work").glob("checkpoint-*/layer_projections.pt"))
    resumed = run("model", **options)
    assert (tmp_path / "model/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()
    assert resumed.curve == whole.curve


def test_in_bfloat16_the_loss_falls_too(run: Train) -> None:
    trained = run(objectives=[HIDDEN, RELATIONS], max_steps=12, learning_rate=5e-3, precision="bfloat16")
    assert float(trained.curve[-1]["loss"] or 0) < float(trained.curve[0]["loss"] or 0)


def test_losses_on_layers_do_not_start_without_layers(narrow: Path, signals: Path, template: Template, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="hidden_states needs the teacher's layers and there are none"):
        train(
            narrow,
            tmp_path / "model",
            tmp_path / "work",
            template=template,
            rows=ROWS,
            validation=(),
            section=TrainingSection(max_steps=1, objectives=(HIDDEN,)),
            seed=1,
            what="trial",
            signals=SignalStore.open(signals, {}),
        )


def test_heads_that_differ_stop_a_run_before_it_starts(
    run: Train, narrow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slmops.files import read_json, write_json

    config = read_json(narrow / "config.json")
    try:
        write_json(narrow / "config.json", {**config, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16})
        with pytest.raises(ConfigError, match="the teacher has 4 attention heads and the student 2"):
            run(objectives=[{"name": "attention_maps"}])
    finally:
        write_json(narrow / "config.json", config)
    assert not list(tmp_path.glob("model-work/*"))


def test_other_layers_are_refused_by_their_name(signals: Path) -> None:
    with pytest.raises(FingerprintError, match="made with another layers"):
        SignalStore.open(signals / "layers", {"layers": Layers((0,), ()).fingerprint})

"""Rows split over threads train as the whole batch does: the same losses and gradients, and the same bytes every time."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from slmops.data.rows import Row
from slmops.data.templates import IGNORED, Encoded, Template
from slmops.errors import ConfigError
from slmops.models.widening import widen
from slmops.sections import LoraSection, TrainingSection
from slmops.signals.sampled import Sampled
from slmops.signals.topk import TopK
from slmops.training import deferred, loop, parallel, trainer
from slmops.training.batches import collate
from slmops.training.cores import Cores
from slmops.training.forward import losses_of, total_loss
from slmops.training.inputs import _with_lora, open_student
from slmops.training.objectives import CrossEntropy, WeightedSum
from slmops.training.parallel import DataParallel, split
from slmops.training.projection import Projection
from tests.interruptions import interrupted_in

VOCABULARY = 61


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Also on a machine with one core, and for batches and weights as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(parallel, "_FEWEST_TOKENS", 1)
    monkeypatch.setattr(deferred, "_NARROWEST", 3)
    yield
    torch.set_num_threads(before)


def row(prompt: int, answer: int, seed: int) -> Encoded:
    ids = torch.randint(3, VOCABULARY, (prompt + answer,), generator=torch.Generator().manual_seed(seed)).tolist()
    return Encoded(tuple(ids), (*[IGNORED] * prompt, *ids[prompt:]))


ROWS = [row(2, 1, 0), row(2, 4, 1), row(7, 1, 2), row(3, 6, 3), row(9, 5, 4)]
ANSWERS = sum(len(one.answer_ids) for one in ROWS)


def batch_with(form: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    logits = [3 * torch.randn(len(one.answer_ids), VOCABULARY, generator=generator) for one in ROWS]
    if form == "sampled":
        return collate(ROWS, 0, [Sampled.from_logits(one, 5, np.linspace(0, 0.9, len(one))) for one in logits])
    return collate(ROWS, 0, [TopK.from_logits(one, 4) for one in logits] if form == "topk" else None)


def model(**values: Any) -> Any:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    config = LlamaConfig(vocab_size=VOCABULARY, initializer_range=0.4, tie_word_embeddings=True, **shape, **values)
    config._attn_implementation = "eager"
    made = LlamaForCausalLM(config)
    made.get_input_embeddings().weight.requires_grad_(False)
    return made.train()


def gradients(one: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in one.named_parameters() if parameter.grad is not None}


def test_a_split_batch_by_hand() -> None:
    """Rows of 3 and 5 tokens, padded to 5; both predict their last two tokens."""
    whole = collate([row(1, 2, 0), row(3, 2, 1)], 0)
    first, second = split(whole, 2)
    assert first["input_ids"].shape == (1, 3)
    assert torch.equal(first["input_ids"], whole["input_ids"][:1, 2:])
    assert first["position_ids"].tolist() == [[0, 1, 2]]
    assert first["logits_to_keep"].tolist() == [0, 1]
    assert second["logits_to_keep"].tolist() == [2, 3]
    assert first["answer_index"].tolist() == second["answer_index"].tolist() == [0, 1]
    assert torch.equal(torch.cat([first["shift_labels"], second["shift_labels"]]), whole["shift_labels"])


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
@pytest.mark.parametrize("form", ["none", "topk", "sampled"])
def test_parts_are_what_would_have_been_made_of_their_rows(form: str, parts: int) -> None:
    bounds = [len(ROWS) * place // parts for place in range(parts + 1)]
    for part, first, after in zip(split(batch_with(form), parts), bounds, bounds[1:], strict=False):
        own = collate(ROWS[first:after], 0)
        for name, tensor in own.items():
            assert torch.equal(part[name], tensor), name
        assert sorted(part) == sorted(batch_with(form))
        assert all(len(part[name]) == len(own["shift_labels"]) for name in part if name.startswith("signal_"))


@pytest.mark.parametrize("form", ["topk", "sampled"])
def test_threads_find_the_loss_and_the_gradients_of_the_whole(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice without an update between them, as batches are accumulated."""
    monkeypatch.setattr(parallel, "quicken", lambda *_: None)  # norms add up in another order
    losses = WeightedSum.of([{"name": "cross_entropy", "weight": 0.3}, {"name": "forward_kl", "weight": 0.7}])
    whole, shared, batch = model(), model(), batch_with(form)

    def loss(one: Any, projection: Projection | None, part: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return total_loss(one, part, losses, projection) / ANSWERS

    with DataParallel.of(shared, Projection.of(shared)) as threads:
        assert threads is not None
        for _ in range(2):
            expected = loss(whole, Projection.of(whole), batch)
            expected.backward()
            found = threads.backward(batch, loss)
            assert float(found) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert gradients(shared).keys() == gradients(whole).keys()
    assert len(gradients(shared)) == 19
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(shared)[name], gradient, atol=1e-6, rtol=1e-5)


def test_threads_train_the_rows_of_new_tokens_beside_an_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    """The output layer is the embedding, and both read the rows of one parameter."""
    monkeypatch.setattr(parallel, "_LARGE", 0)
    monkeypatch.setattr(parallel, "quicken", lambda *_: None)  # norms add up in another order

    def loss(one: Any, projection: Projection | None, part: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return total_loss(one, part, CrossEntropy(), projection) / ANSWERS

    both = []
    for _ in range(2):
        one = model()
        widen(one, [61, 62])
        torch.manual_seed(0)
        both.append(_with_lora(one, LoraSection(r=2), [61, 62]).train())
    new = [Encoded((61, 5, 62, 7), (IGNORED, IGNORED, 62, 7)), Encoded((3, 61, 62), (IGNORED, 61, 62))]
    batch, (whole, shared) = collate([*ROWS[:3], *new], 0), both
    with DataParallel.of(shared, Projection.of(shared)) as threads:
        assert threads is not None
        loss(whole, Projection.of(whole), batch).backward()
        threads.backward(batch, loss)
    assert gradients(shared).keys() == gradients(whole).keys()
    (rows,) = (name for name in gradients(whole) if "trainable_tokens" in name)
    assert gradients(whole)[rows].abs().sum(-1).min() > 0
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(shared)[name], gradient, atol=1e-6, rtol=1e-5)


def test_threads_share_the_weights_and_run_at_the_same_time() -> None:
    one = model()
    together = threading.Barrier(2, timeout=30)
    seen: list[tuple[int, int]] = []

    def loss(own: Any, _: Projection | None, part: Mapping[str, torch.Tensor]) -> torch.Tensor:
        together.wait()
        seen.append((threading.get_ident(), torch.get_num_threads()))
        return own.model.layers[0].mlp.up_proj.weight.sum()

    with DataParallel.of(one, None) as threads:
        assert threads is not None
        memory = [{parameter.data_ptr() for parameter in own.parameters()} for own in (one, *threads.twins)]
        assert memory[0] == memory[1] == memory[2]
        threads.backward(batch_with("topk"), loss)
    assert len({thread for thread, _ in seen}) == 2
    assert [cores for _, cores in seen] == [1, 1]
    assert torch.get_num_threads() == 2
    assert one.model.layers[0].mlp.up_proj.weight.grad.unique().tolist() == [2.0]


def test_an_error_in_a_thread_is_raised_when_the_others_have_ended() -> None:
    ended = []

    def work(number: int) -> None:
        if number == 0:
            raise KeyboardInterrupt
        ended.append(number)

    with Cores(2) as cores, pytest.raises(KeyboardInterrupt):
        cores.each(work, [0, 1, 2])
    assert ended == [1, 2]


def is_split(one: Any) -> bool:
    with DataParallel.of(one, None) as threads:
        return threads is not None


def test_what_is_not_split() -> None:
    assert is_split(model())
    assert not is_split(model(attention_dropout=0.1))
    dropping = model()
    dropping.model.layers[0].mlp.act_fn = torch.nn.Sequential(torch.nn.SiLU(), torch.nn.Dropout(0.1))
    assert not is_split(dropping)
    whole_vocabulary = model()
    whole_vocabulary.get_input_embeddings().weight.requires_grad_(True)  # 976 of 4,688 weights
    assert is_split(whole_vocabulary)
    whole_vocabulary.resize_token_embeddings(400)
    assert not is_split(whole_vocabulary)
    torch.set_num_threads(1)
    assert not is_split(model())


TEXTS = [
    Row.of(f"question {number}" + " please" * (number % 4), ("delivery", "refund", "account")[number % 3]) for number in range(8)
]


def trained(tiny_model: Path, template: Template, folder: Path, **values: Any) -> dict[str, torch.Tensor]:
    fixed = {"max_steps": 6, "batch_size": 4, "gradient_accumulation_steps": 2, "precision": "float32", "freeze_embeddings": True}
    section = TrainingSection(**{**fixed, **values})
    work = folder.with_name(f"{folder.name}-work")
    loop.train(tiny_model, folder, work, template=template, rows=TEXTS, validation=TEXTS[:2], section=section, seed=1, what="trial")
    return dict(open_student(folder, TrainingSection()).state_dict())


def test_activations_that_are_computed_again_leave_the_same_for_later(tiny_model: Path, template: Template, tmp_path: Path) -> None:
    kept = trained(tiny_model, template, tmp_path / "kept")
    again = trained(tiny_model, template, tmp_path / "again", gradient_checkpointing=True)
    for name, tensor in kept.items():
        torch.testing.assert_close(again[name], tensor, atol=2e-5, rtol=1e-4)


ADAPTERS: Mapping[str, LoraSection | None] = {
    "full": None,
    "lora": LoraSection(r=4),
    "qlora": LoraSection(r=4, bits=4),
    "dora": LoraSection(r=4, dora=True, target_modules=("q_proj", "down_proj"), modules_to_save=("norm",)),
}


@pytest.mark.parametrize("lora", ADAPTERS.values(), ids=ADAPTERS)
def test_a_split_training_is_the_whole_one(
    tiny_model: Path, template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: LoraSection | None
) -> None:
    found = trained(tiny_model, template, tmp_path / "split", lora=lora)
    with monkeypatch.context() as patch:
        patch.setattr(parallel, "_FEWEST_TOKENS", 10**9)
        whole = trained(tiny_model, template, tmp_path / "whole", lora=lora)
    for name, tensor in whole.items():
        torch.testing.assert_close(found[name], tensor, atol=2e-4, rtol=1e-3)


def loss_in_bfloat16(one: Any, projection: Projection | None, part: Mapping[str, torch.Tensor]) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return total_loss(one, part, CrossEntropy(), projection) / ANSWERS


def test_weights_converted_once_an_update_are_those_that_autocast_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two updates, so that the second meets weights that the first has changed; bit by bit."""
    monkeypatch.setattr(deferred, "_NARROWEST", 10**9)  # a product of all rows is rounded once, not once a thread
    monkeypatch.setattr(parallel, "quicken", lambda *_: None)  # norms add up in another order
    ends = []
    for dtype in (torch.bfloat16, None):
        one = model()
        with DataParallel.of(one, Projection.of(one), dtype) as threads:
            assert threads is not None
            kinds = {parameter.dtype for parameter in threads.twins[0].parameters()}
            assert kinds == ({torch.float32, torch.bfloat16} if dtype else {torch.float32})
            optimizer = torch.optim.AdamW(one.parameters(), lr=1e-2)
            for _ in range(2):
                threads.backward(batch_with("none"), loss_in_bfloat16)
                optimizer.step()
                optimizer.zero_grad()
        ends.append(one.state_dict())
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())


def test_gradients_made_later_are_closer_to_those_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """One product of all rows' bfloat16 is rounded once; two batches are accumulated, and the second has rows of its own."""
    batches = [batch_with("none"), collate([row(6, 2, 7), row(2, 3, 8)], 0)]
    exact = model()
    for batch in batches:
        (total_loss(exact, batch, CrossEntropy(), Projection.of(exact)) / ANSWERS).backward()
    off = {}
    for narrowest in (3, 10**9):
        monkeypatch.setattr(deferred, "_NARROWEST", narrowest)
        one = model()
        with DataParallel.of(one, Projection.of(one), torch.bfloat16) as threads:
            assert threads is not None
            assert len(threads.deferred.weights) == (14 if narrowest == 3 else 0)
            for batch in batches:
                threads.backward(batch, loss_in_bfloat16)
        assert gradients(one).keys() == gradients(exact).keys()
        assert {gradient.dtype for gradient in gradients(one).values()} == {torch.float32}
        off[narrowest] = sum(float((gradients(one)[name] - own).norm()) for name, own in gradients(exact).items())
    assert 0 < off[3] < off[10**9]


@pytest.mark.parametrize("biased", [False, True])
def test_whose_gradients_are_made_later(biased: bool) -> None:
    """Trained linear layers without bias; what was left is split alike between the threads, and gone afterwards."""
    one = model(attention_bias=biased)
    one.model.layers[1].mlp.requires_grad_(False)
    with DataParallel.of(one, Projection.of(one)) as threads:
        assert threads is not None
        layers = [layer.mlp for layer in one.model.layers[:1]] + [layer.self_attn for layer in one.model.layers if not biased]
        expected = [part.weight for layer in layers for part in layer.children() if isinstance(part, torch.nn.Linear)]
        assert {id(weight) for weight in threads.deferred.weights} == {id(weight) for weight in expected}
        shares = []
        original = type(threads.deferred).shares

        def seen(self: Any, count: int) -> Any:
            shares.append(original(self, count))
            return shares[-1]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(threads.deferred), "shares", seen)
            threads.backward(batch_with("none"), lambda own, parts, part: total_loss(own, part, CrossEntropy(), parts))
        (parts,) = shares
        weights = [weight for part in parts for products in part for weight, _ in products.outputs]
        assert sorted(map(id, weights)) == sorted(map(id, expected))
        readers = {len(products.outputs) for part in parts for products in part}
        assert readers == ({1, 2} if biased else {1, 2, 3})  # what reads one input is multiplied by it together
        first, second = (sum(products.size for products in part) for part in parts)
        assert 0.5 <= first / second <= 2
        assert threads.deferred.shares(2) == [[], []]


def test_a_layer_that_is_not_there_gets_no_adapter(tiny_model: Path) -> None:
    section = TrainingSection(lora=LoraSection(target_modules=("q_proj", "q_porj")))
    with pytest.raises(ConfigError, match=r"lora.target_modules: this model has no layer 'q_porj'\n.*q_proj"):
        open_student(tiny_model, section)


class Exact(torch.nn.Module):
    """Computes in float32 whatever surrounds it."""

    def __init__(self, layer: torch.nn.Linear, converts: bool) -> None:
        super().__init__()
        self.layer, self.converts = layer, converts

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            if self.converts:
                return torch.nn.functional.linear(given.float(), self.layer.weight.float())
            return self.layer(given.float())


@pytest.mark.parametrize("converts", [True, False], ids=["other numbers", "two number types"])
def test_weights_stay_as_they_are_where_a_layer_needs_them_exact(converts: bool) -> None:
    one = model()
    one.model.layers[0].mlp.gate_proj = Exact(one.model.layers[0].mlp.gate_proj, converts)
    with DataParallel.of(one, Projection.of(one), torch.bfloat16) as threads:
        assert threads is not None
        assert {parameter.dtype for parameter in threads.twins[0].parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("adapter", "precision"),
    [
        ("full", "float32"),
        ("full", "bfloat16"),
        ("lora", "float32"),
        ("lora", "bfloat16"),
        ("dora", "float32"),
        ("qlora", "bfloat16"),
    ],
)
def test_a_split_training_is_interrupted_and_goes_on_to_the_same_bytes(
    tiny_model: Path, template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adapter: str, precision: str
) -> None:
    lora = ADAPTERS[adapter]
    trained(tiny_model, template, tmp_path / "whole", lora=lora, precision=precision)
    original, threads = trainer.total_loss, set()

    def seen(*given: Any) -> Any:
        threads.add(threading.current_thread().name)
        return original(*given)

    monkeypatch.setattr(trainer, "total_loss", seen)
    with interrupted_in(monkeypatch, 15):
        trained(tiny_model, template, tmp_path / "model", checkpoint_seconds=0, lora=lora, precision=precision)
    assert len(threads) == 2
    assert all(name.startswith("slmops-cores") for name in threads)
    assert (tmp_path / "model-work" / "checkpoint-3").is_dir()
    trained(tiny_model, template, tmp_path / "model", checkpoint_seconds=0, lora=lora, precision=precision)
    assert (tmp_path / "model/model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


def test_columns_beyond_the_longest_row_change_no_loss() -> None:
    """Rows of 17 and 33 tokens, which stand in batches of 18 and 36 columns."""
    one = model()
    for length in (17, 33):
        own = row(length - 3, 3, length)
        batch = collate([own, row(2, 2, 0)], 0)
        assert batch["input_ids"].shape[1] > length
        logits = one(torch.tensor([own.input_ids])).logits[0, length - 4 : -1]
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(own.answer_ids), reduction="none")
        found = losses_of(one, batch, CrossEntropy(), Projection.of(one))[:3]
        torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-5)


def test_where_the_trainer_will_take_a_gpu_there_are_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """It moves the model after they are made."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with DataParallel.of(model(), None) as threads:
        assert threads is None

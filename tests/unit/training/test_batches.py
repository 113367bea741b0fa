"""Which rows stand in which batch, and a batch's tensors worked out by hand."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from slmops.data.templates import IGNORED, Encoded
from slmops.models.load import load_model
from slmops.signals.sampled import Sampled
from slmops.signals.tensors import SampledTensors, from_batch
from slmops.signals.topk import TopK
from slmops.training.batches import PlannedBatches, collate, only_item, padded_width, plan_batches, steps_of
from slmops.training.forward import answers_of

LENGTHS = random.Random(0).choices(range(5, 60), k=203)
PAD = 2
# Prompt 11 12 13, answer 14 15 and the end token; prompt 21, answer 22 and the end token.
LONG = Encoded((11, 12, 13, 14, 15, 2), (IGNORED, IGNORED, IGNORED, 14, 15, 2))
SHORT = Encoded((21, 22, 2), (IGNORED, 22, 2))


@pytest.mark.parametrize("batch_size", [1, 4, 16, 203, 500])
def test_every_row_stands_in_an_epoch_exactly_once(batch_size: int) -> None:
    epoch = -(-len(LENGTHS) // batch_size)
    plan = plan_batches(LENGTHS, batch_size, seed=1, count=2 * epoch)
    for batches in (plan[:epoch], plan[epoch:]):
        assert sorted(row for batch in batches for row in batch) == list(range(len(LENGTHS)))
        assert sum(len(batch) != batch_size for batch in batches) <= 1


def test_a_longer_plan_starts_with_the_shorter_one() -> None:
    long = plan_batches(LENGTHS, 16, seed=1, count=60)
    for count in (1, 13, 14, 31):
        assert plan_batches(LENGTHS, 16, seed=1, count=count) == long[:count]


def test_a_plan_depends_on_its_arguments_alone() -> None:
    random.seed(1)
    first = plan_batches(LENGTHS, 16, seed=1, count=20)
    random.seed(2)
    assert plan_batches(LENGTHS, 16, seed=1, count=20) == first
    assert plan_batches(LENGTHS, 16, seed=2, count=20) != first


def test_epochs_are_shuffled_differently() -> None:
    plan = plan_batches(LENGTHS, 16, seed=1, count=26)
    assert plan[:13] != plan[13:]
    assert not {tuple(batch) for batch in plan[:13]} & {tuple(batch) for batch in plan[13:]}


def test_rows_of_like_length_stand_together() -> None:
    def padding(batches: list[list[int]]) -> int:
        return sum(max(LENGTHS[row] for row in batch) - LENGTHS[row] for batch in batches for row in batch)

    in_order = [list(range(start, min(start + 16, len(LENGTHS)))) for start in range(0, len(LENGTHS), 16)]
    assert padding(plan_batches(LENGTHS, 16, seed=1, count=13)) < padding(in_order) / 3


@pytest.mark.parametrize(
    ("rows", "batch_size", "accumulation", "epochs", "updates"),
    [(100, 16, 1, 3, 21), (96, 16, 1, 3, 18), (100, 16, 2, 1, 4), (3, 16, 1, 1, 1), (3, 16, 8, 0.1, 1), (100, 10, 1, 0.5, 5)],
)
def test_the_updates_of_a_run(rows: int, batch_size: int, accumulation: int, epochs: float, updates: int) -> None:
    assert steps_of(rows, batch_size, accumulation, epochs) == updates


def test_a_batch_by_hand() -> None:
    batch = collate([LONG, SHORT], PAD)
    assert batch["input_ids"].tolist() == [[11, 12, 13, 14, 15, 2], [PAD, PAD, PAD, 21, 22, 2]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 1, 2]]
    # Columns 3, 4, 5 hold the long row's answer, so columns 2, 3, 4 predict it; the short row's stand in 4, 5.
    assert batch["logits_to_keep"].tolist() == [2, 3, 4]
    assert batch["shift_labels"].tolist() == [14, 15, 2, 22, 2]
    # Row 0 uses the kept columns 0, 1, 2; row 1 the last two of its own three: 3 + 1 and 3 + 2.
    assert batch["answer_index"].tolist() == [0, 1, 2, 4, 5]


def test_the_logits_of_a_batch_predict_the_next_token(tiny_model: Path) -> None:
    model = load_model(tiny_model)
    with torch.no_grad():
        answers = answers_of(model, collate([LONG, SHORT], PAD))
        expected = []
        for row in (LONG, SHORT):
            dense = model(torch.tensor([row.input_ids])).logits[0]
            expected += [dense[position - 1] for position, label in enumerate(row.labels) if label != IGNORED]
    assert answers.labels.tolist() == [14, 15, 2, 22, 2]
    assert answers.logits.dtype == torch.float32
    torch.testing.assert_close(answers.logits, torch.stack(expected), atol=1e-5, rtol=1e-5)


def test_a_rows_logits_depend_neither_on_padding_nor_on_the_rest_of_the_batch(tiny_model: Path) -> None:
    model = load_model(tiny_model)
    longer = Encoded((*range(31, 51), 2), (*[IGNORED] * 19, 50, 2))
    with torch.no_grad():
        alone = answers_of(model, collate([SHORT], PAD)).logits
        together = answers_of(model, collate([longer, LONG, SHORT, LONG], PAD)).logits
    torch.testing.assert_close(together[2 + 3 : 2 + 3 + 2], alone, atol=1e-5, rtol=1e-5)


def signal(start: int, positions: int) -> TopK:
    ids = np.arange(start, start + 2 * positions, dtype=np.int32).reshape(positions, 2)
    return TopK(ids, np.full((positions, 2), -1.5, dtype=np.float16), np.full(positions, -0.5, dtype=np.float32))


def test_signals_lie_beside_the_tokens_they_are_about() -> None:
    batch = collate([LONG, SHORT], PAD, [signal(0, 3), signal(100, 2)])
    assert batch["signal_ids"].tolist() == [[0, 1], [2, 3], [4, 5], [100, 101], [102, 103]]
    assert [batch[name].dtype for name in ("signal_ids", "signal_logprobs", "signal_tail")] == [
        torch.int64,
        torch.float32,
        torch.float32,
    ]
    assert batch["signal_ids"].shape[:1] == batch["signal_tail"].shape == batch["shift_labels"].shape


def test_drawn_tokens_lie_beside_the_tokens_they_are_about() -> None:
    first = Sampled(np.array([2, 1, 1], np.uint8), np.array([0.5, 0, 0], np.float16), *drawn([3, 9, 5, 6], [1, 3, 4, 4]))
    second = Sampled(np.array([1, 3], np.uint8), np.array([0, 1], np.float16), *drawn([8, 1, 2, 3], [4, 1, 1, 2]))
    batch = collate([LONG, SHORT], PAD, [first, second])
    assert batch["signal_ids"].tolist() == [[3, 9, 0], [5, 0, 0], [6, 0, 0], [8, 0, 0], [1, 2, 3]]
    assert batch["signal_weights"].tolist() == [[0.25, 0.75, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0], [0.25, 0.25, 0.5]]
    assert batch["signal_entropy"].tolist() == [0.5, 0, 0, 0, 1]
    assert [batch[f"signal_{name}"].dtype for name in ("ids", "weights", "entropy")] == [torch.int64, torch.float32, torch.float32]
    seen = from_batch(batch)
    assert isinstance(seen, SampledTensors)
    assert seen.at(slice(4, 5)).ids.tolist() == [[1, 2, 3]]


def drawn(ids: list[int], counts: list[int]) -> tuple[np.ndarray, np.ndarray]:
    return np.array(ids, np.uint16), np.array(counts, np.uint8)


def test_a_data_set_gives_the_batches_of_its_plan() -> None:
    batches = PlannedBatches([[1], [0, 1]], [LONG, SHORT], PAD, [signal(0, 3), signal(100, 2)])
    assert len(batches) == 2
    assert batches[0]["shift_labels"].tolist() == [22, 2]
    assert batches[0]["signal_ids"].tolist() == [[100, 101], [102, 103]]
    assert only_item([batches[1]])["input_ids"].shape == (2, 6)
    assert "signal_ids" not in PlannedBatches([[0]], [LONG], PAD, None)[0]


def test_widths_of_batches_are_few() -> None:
    assert [padded_width(length) for length in (1, 9, 16, 17, 18, 19, 32, 33, 36, 37, 64, 65, 500)] == [
        1, 9, 16, 18, 18, 20, 32, 36, 36, 40, 64, 72, 512,
    ]  # fmt: skip
    lengths = range(17, 2049)
    assert len({padded_width(length) for length in lengths}) == 7 * 8
    assert all(length <= padded_width(length) <= 1.125 * length for length in lengths)

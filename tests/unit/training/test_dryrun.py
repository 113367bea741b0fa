"""A dry run measures a training and leaves it as it was."""

from __future__ import annotations

import random
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.sections import LoraSection, TrainingSection
from slmops.training.dryrun import Measured, measure, sample
from slmops.training.fitting import Estimate
from slmops.training.inputs import open_student
from slmops.training.loop import train

ROWS = [Row.of("please " * (1 + n % 9) + f"number {n}", "delivery", f"rows.csv:{n}") for n in range(60)]
LORA = TrainingSection(lora=LoraSection(r=4, dropout=0.1), batch_size=8, max_steps=6, precision="float32")


def tried(model: Path, template: Template, section: TrainingSection, rows: list[Row] = ROWS) -> Measured:
    batches = sample(rows, rows[:6], template, section, 1)
    assert batches is not None
    return measure(lambda: open_student(model, section), section, batches, int(template.tokenizer.eos_token_id))


def test_the_longest_rows_and_a_batch_as_most_are_taken(template: Template) -> None:
    long = Row.of("please " * 60, "delivery")
    rows = [*[Row.of(f"number {n}", "delivery") for n in range(3000)], long, Row.of("please " * 200, "delivery")]
    batches = sample(rows, [], template, TrainingSection(batch_size=4, epochs=2, max_length=250), 1)
    assert batches is not None
    assert max(len(row.input_ids) for row in batches.widest) == max(batches.work.lengths) == len(template.encode(long).input_ids)
    assert len(batches.typical) == len(batches.widest) == 4
    assert max(len(row.input_ids) for row in batches.typical) < 40
    assert batches.work.rows == pytest.approx(3000, abs=5)  # the longest is set aside
    assert batches.work.updates == pytest.approx(1500, abs=3)
    assert len(batches.work.lengths) < 2100
    assert sample([long], [], template, TrainingSection(max_length=8), 1) is None


def test_weights_and_random_numbers_are_those_without_a_dry_run(tiny_model: Path, template: Template, tmp_path: Path) -> None:
    def trained(name: str) -> bytes:
        train(
            tiny_model, tmp_path / name, tmp_path / f"{name}-work", template=template, rows=ROWS, validation=[], section=LORA,
            seed=1, what="trial",
        )  # fmt: skip
        return (tmp_path / name / "model.safetensors").read_bytes()

    without = trained("without")
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    deterministic = torch.are_deterministic_algorithms_enabled()
    tried(tiny_model, template, LORA)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert trained("with") == without


@pytest.mark.parametrize("lora", [None, LoraSection(r=4), LoraSection(r=4, bits=4)], ids=["full", "lora", "qlora"])
def test_it_counts_what_is_trained_and_takes_a_moment(tiny_model: Path, template: Template, lora: LoraSection | None) -> None:
    section = LORA.model_copy(update={"lora": lora})
    started = time.perf_counter()
    found = tried(tiny_model, template, section)
    assert time.perf_counter() - started < 30
    assert 0 < found.trained <= found.parameters
    assert (found.trained == found.parameters) == (lora is None)
    assert found.linear > 0
    assert found.linear < found.parameters or (lora is not None and lora.bits)  # packed weights are fewer numbers
    assert found.layers == 4
    assert found.typical[0] < found.widest[0]
    assert min(found.typical[2], found.widest[2], found.update_seconds, found.fixed_mb) > 0
    assert found.token_mb >= 0


def test_pairs_of_texts_are_part_of_it(tiny_model: Path, template: Template) -> None:
    rows = [Row.of(f"is {n} like {n + 1}", "sa" if n % 2 else "di") for n in range(12)]
    rows = [Row(row.id, row.messages, row.answer, fields={"left": f"one {n}", "right": f"two {n}"}) for n, row in enumerate(rows)]
    spec = {"name": "contrastive", "fields": ["left", "right"], "same": ["sa"], "different": ["di"]}
    section = TrainingSection(objectives=({"name": "cross_entropy"}, spec), batch_size=4, max_steps=2, precision="float32")
    assert tried(tiny_model, template, section, rows).typical[2] > 0


def test_the_estimate_of_a_real_training_is_near(tiny_model: Path, template: Template, tmp_path: Path) -> None:
    section = LORA.model_copy(update={"max_steps": 30})
    batches = sample(ROWS, [], template, section, 1)
    assert batches is not None
    estimate = Estimate.of(tried(tiny_model, template, section), batches.work)
    done = train(
        tiny_model, tmp_path / "model", tmp_path / "work", template=template, rows=ROWS, validation=[], section=section,
        seed=1, what="trial",
    )  # fmt: skip
    # Of a tiny model most is not arithmetic, and other processes come and go: the order of magnitude.
    assert estimate.seconds / 8 < done.seconds < 8 * estimate.seconds
    assert estimate.tokens == pytest.approx(30 * 8 * sum(batches.work.lengths) / len(ROWS), rel=0.01)

"""What a dry run's figures make of a training: time, memory, and what would fit instead. All by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from slmops.errors import ResourceError
from slmops.sections import LoraSection, TrainingSection
from slmops.training.dryrun import Measured, Work
from slmops.training.fitting import Estimate, check_fits, instead

WORK = Work(rows=100, lengths=(10, 10, 10, 10, 10, 10, 10, 10, 10, 100), batch_size=8, updates=50, accumulation=1, looked=20)
MEASURED = Measured(
    typical=(80, 80, 0.4),  # tokens, with padding, seconds
    widest=(800, 832, 4.0),
    update_seconds=0.1,
    fixed_mb=1000.0,
    token_mb=2.0,
    available_mb=4000.0,
    parameters=150_000_000,
    linear=100_000_000,
    trained=2_000_000,
    layers=20,
    seconds=3.0,
)
LORA = TrainingSection(batch_size=8, max_steps=50, lora=LoraSection())


def test_time_is_that_of_all_batches_updates_and_looks() -> None:
    # 19 tokens a row: 152 a batch, 5 ms each; 9 looks at 20 rows, a third of that a token.
    assert WORK.batch_tokens == 152
    assert WORK.looks == 9
    assert MEASURED.seconds_of(WORK) == pytest.approx(50 * 152 * 0.005 + 50 * 0.1 + 9 * 20 * 19 * 0.005 / 3)


def test_small_batches_are_not_cheaper_a_token() -> None:
    steep = replace(MEASURED, widest=(800, 832, 8.0))
    assert steep.batch_seconds(40) == pytest.approx(0.2)
    flat = replace(MEASURED, widest=(800, 832, 2.2))  # 0.2 s a batch, and 2.5 ms a token
    assert flat.batch_seconds(40) == pytest.approx(0.3)
    assert flat.batch_seconds(400) == pytest.approx(1.2)


def test_the_estimate_has_the_longest_batch_in_memory() -> None:
    found = Estimate.of(MEASURED, WORK)
    assert found.peak_mb == 1000 + 2 * 8 * 104  # 100 tokens are padded to 104
    assert (found.updates, found.tokens) == (50, 7600)
    assert found.describe().startswith("ETA 49 s for 50 updates, 7,600 tokens; peak 2.7 GB of memory, 4.0 GB are available")


def test_a_training_that_fits_is_let_be() -> None:
    check_fits(MEASURED, WORK, LORA, what="training")


def test_one_that_does_not_fit_is_refused_with_what_would() -> None:
    small = replace(MEASURED, available_mb=2100.0)
    with pytest.raises(ResourceError) as refused:
        check_fits(small, WORK, LORA, what="training")
    message = str(refused.value)
    assert "needs about 2.7 GB of memory, and 2.1 GB are available" in message
    assert "training.batch_size=4 training.gradient_accumulation_steps=2: about 1.8 GB, 49 s; the same updates" in message
    assert "training.max_length=10: about 1.2 GB, 28 s; sets 10.0% of the rows aside" in message
    assert "lora.bits" not in message  # 2.3 GB
    with pytest.raises(ResourceError, match="take a smaller model"):
        check_fits(replace(MEASURED, available_mb=900.0), WORK, LORA, what="training")


def test_packed_weights_save_their_bytes_and_for_all_weights_their_gradients_too() -> None:
    whole = 1000 + 2 * 832
    named = {way.settings: way for way in instead(replace(MEASURED, available_mb=10_000.0), WORK, LORA)}
    assert named["training.lora.bits=4"].peak_mb == pytest.approx(whole - 100 * (4 - 4.5 / 8))
    assert str(named["training.lora.bits=4"]).endswith("more time; an adapter on weights in 4 bits")
    full = replace(MEASURED, available_mb=10_000.0, trained=150_000_000)
    named = {way.settings: way for way in instead(full, WORK, TrainingSection(batch_size=8))}
    assert named["--method qlora"].peak_mb == pytest.approx(whole - 100 * (4 - 4.5 / 8) - 150 * 12)
    packed = TrainingSection(batch_size=8, lora=LoraSection(bits=4))
    assert not any("bits" in way.settings or "qlora" in way.settings for way in instead(MEASURED, WORK, packed))


def test_checkpointed_activations_are_named_where_all_are_kept() -> None:
    named = {way.settings: way for way in instead(MEASURED, WORK, TrainingSection(batch_size=8))}
    way = named["training.gradient_checkpointing=true"]
    assert way.peak_mb == pytest.approx(1000 + 2 * 832 * (0.06 + 1 / 20))
    assert way.seconds == pytest.approx(4 / 3 * MEASURED.seconds_of(WORK))
    section = TrainingSection(batch_size=8, gradient_checkpointing=True)
    assert not any("checkpointing" in way.settings for way in instead(MEASURED, WORK, section))

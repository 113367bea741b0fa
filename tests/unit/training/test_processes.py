"""The rows of a batch that are a process's own."""

from __future__ import annotations

import pytest
import torch

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import ConfigError, UsageError
from slmops.models.load import load_model
from slmops.sections import LoraSection, TrainingSection
from slmops.training.batches import collate
from slmops.training.forward import losses_of
from slmops.training.objectives import CrossEntropy
from slmops.training.processes import Team, counting

ROWS = [Row.of("how long" + " is it" * n, answer) for n, answer in enumerate(("one", "two words", "three of them", "four", "five"))]


def batch_of(template: Template, count: int) -> dict[str, torch.Tensor]:
    return collate([template.encode(row) for row in ROWS[:count]], int(template.tokenizer.eos_token_id))


@pytest.mark.parametrize(("rows", "processes"), [(5, 2), (4, 4), (1, 3), (2, 5)])
def test_the_losses_of_the_shares_that_count_are_those_of_the_batch(
    tiny_model, template: Template, rows: int, processes: int
) -> None:
    model, batch = load_model(tiny_model), batch_of(template, rows)
    whole = losses_of(model, batch, CrossEntropy(), None)
    shares = [Team(rank, processes).share(batch) for rank in range(processes)]
    assert [counting(share) for share in shares] == [1.0] * min(rows, processes) + [0.0] * max(0, processes - rows)
    own = [losses_of(model, share, CrossEntropy(), None) for share in shares if counting(share)]
    torch.testing.assert_close(torch.cat(own), whole, atol=1e-5, rtol=1e-4)


def test_pairs_of_texts_go_to_all(template: Template) -> None:
    pairs = torch.arange(5)
    share = Team(1, 2).share({**batch_of(template, 4), "pair_different": pairs})
    assert share["pair_different"] is pairs
    assert len(share["input_ids"]) == 2


def test_one_that_is_alone_has_all_and_meets_nobody(template: Template) -> None:
    team, batch = Team(), batch_of(template, 3)
    assert team.share(batch) is batch
    assert team.summed(1.5, 2) == [1.5, 2]
    assert team.decided(lambda: "so") == "so"
    assert team.leads


def test_a_script_of_several_processes_is_told_to_use_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="only the command line"):
        Team.here()


def test_weights_in_few_bits_are_not_spread() -> None:
    packed = TrainingSection(lora=LoraSection(bits=4))
    Team(0, 2).check(packed)
    with pytest.raises(ConfigError, match="few bits"):
        Team(0, 2, sharded=True).check(packed)

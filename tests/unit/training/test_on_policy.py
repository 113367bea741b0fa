"""Training on the student's own samples: whose they are, what is learned from them, and that an interruption changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from slmops.data.rows import Row
from slmops.data.templates import IGNORED, Encoded, Template
from slmops.errors import ConfigError
from slmops.models.load import load_model
from slmops.runtimes.torch_runtime import TorchRuntime
from slmops.sections import LoraSection, OnPolicySection, TrainingSection
from slmops.signals.topk import TopK
from slmops.testing.tiny import save_tiny_model
from slmops.training import trainer
from slmops.training.loop import Trained, train
from slmops.training.objectives import WeightedSum
from slmops.training.on_policy import OwnSamples, Updates, signal_terms
from slmops.training.pairs import PairLoss
from tests.interruptions import interrupted_in

LABELS = ("delivery", "refund of the money", "account")
ROWS = [Row.of(f"question {number}" + " please" * (number % 4), LABELS[number % 3], f"rows.csv:{number}") for number in range(8)]
END, WANTED, OTHER = 2, 70, 71
KL = {"name": "forward_kl"}
CE = {"name": "cross_entropy", "weight": 0.5}


class Scorer:
    """A teacher that says one token and ends; it notes what it was given."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, ...]] = []
        self.asked: list[Row] = []

    def score(self, rows: Sequence[Row], samples: Sequence[tuple[int, ...]]) -> list[TopK]:
        self.seen += samples
        self.asked += rows
        return [self._signal(len(sample)) for sample in samples]

    def _signal(self, positions: int) -> TopK:
        ids = np.array([(WANTED, OTHER) if place == 0 else (END, OTHER) for place in range(positions)], np.uint16)
        logprobs = np.full((positions, 2), np.log((0.9, 0.05)), np.float16)
        return TopK(ids, logprobs, np.log1p(-np.exp(logprobs.astype(np.float64)).sum(-1)).astype(np.float32))


class Cached(Scorer):
    """The same teacher's signals at the answers."""

    def __init__(self, template: Template) -> None:
        super().__init__()
        self._template = template

    def get(self, row: Row) -> TopK:
        return self._signal(len(self._template.encode(row).answer_ids))


class Untouchable:
    """Signals that must not be read."""

    def get(self, row: Row) -> TopK:
        raise AssertionError("a cached row was read")


Train = Callable[..., Trained]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smaller than the tiny model, so that many of these trainings take a second."""
    return save_tiny_model(tmp_path_factory.mktemp("student"), layers=1, hidden=32)


@pytest.fixture
def run(student: Path, template: Template, tmp_path: Path) -> Train:
    """Train into ``tmp_path/NAME`` with the values given."""

    def call(name: str = "model", *, scorer: Any = None, signals: Any = None, seed: int = 1, **values: Any) -> Trained:
        rows, validation = values.pop("rows", ROWS), values.pop("validation", ())
        defaults = {"max_steps": 4, "batch_size": 4, "precision": "float32", "objectives": (KL,)}
        return train(
            student,
            tmp_path / name,
            tmp_path / f"{name}-work",
            template=template,
            rows=rows,
            validation=validation,
            section=TrainingSection(**{**defaults, **values}),
            seed=seed,
            what="trial",
            signals=signals,
            scorer=scorer,
        )

    return call


@dataclass
class Seen:
    """Of every forward pass: prompts and trained tokens, and what the model would say greedily to the prompts at that moment."""

    given: list[list[tuple[list[int], list[int]]]] = field(default_factory=list)
    said: list[list[list[int]]] = field(default_factory=list)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Seen:
    seen, original = Seen(), trainer.total_loss

    def watching(model: Any, batch: dict[str, torch.Tensor], *rest: Any) -> torch.Tensor:
        seen.given.append(parts(batch))
        seen.said.append([greedy(model, prompt, len(answer)) for prompt, answer in parts(batch)])
        return original(model, batch, *rest)

    monkeypatch.setattr(trainer, "total_loss", watching)
    return seen


def greedy(model: Any, prompt: list[int], count: int) -> list[int]:
    """Without a cache, without padding."""
    was_training = model.training
    model.eval()
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    model.train(was_training)
    return ids[len(prompt) :]


def parts(batch: dict[str, torch.Tensor]) -> list[tuple[list[int], list[int]]]:
    """Prompt and trained tokens of each row, read from where the losses stand."""
    width = len(batch["logits_to_keep"])
    found = []
    for number in range(len(batch["input_ids"])):
        places = [int(place) % width for place in batch["answer_index"] if int(place) // width == number]
        columns = [int(batch["logits_to_keep"][place]) for place in places]
        start = int((batch["attention_mask"][number] == 0).sum())
        ids = batch["input_ids"][number].tolist()
        found.append((ids[start : columns[0] + 1], [ids[column + 1] for column in columns]))
    return found


def own_samples(
    template: Template,
    plan: list[list[int]],
    section: OnPolicySection,
    *,
    seed: int = 1,
    scorer: Any = None,
    dtype: torch.dtype | None = None,
) -> OwnSamples:
    """To the rows of a plan, a forward pass an update."""
    updates = Updates(plan, 1, ROWS, [template.encode(row) for row in ROWS], template.tokenizer, 512, seed)
    return OwnSamples(section, updates, WeightedSum.of((KL,)), scorer or Scorer(), dtype)


class CountedCasts(TorchDispatchMode):
    """Counts conversions of matrices without a batch, which are weights, to bfloat16."""

    of_weights = 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        is_cast = function is torch.ops.aten._to_copy.default and options.get("dtype") is torch.bfloat16
        self.of_weights += is_cast and arguments[0].dim() == 2 and min(arguments[0].shape) > 2
        return function(*arguments, **options)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("lora", [None, LoraSection(dropout=0.5)], ids=["all weights", "adapter"])
def test_samples_are_what_the_student_says_at_their_update(run: Train, watched: Seen, lora: LoraSection | None) -> None:
    scorer = Scorer()
    on_policy = {"share": 1, "every": 1, "temperature": 0, "max_new_tokens": 3}
    run(scorer=scorer, on_policy=on_policy, learning_rate=3e-2, lora=lora)
    assert [[answer for _, answer in given] for given in watched.given] == watched.said
    assert scorer.seen == [tuple(answer) for said in watched.said for answer in said]
    assert watched.said[0] != watched.said[-1]


def test_updates_that_share_a_draw_have_the_samples_of_its_first(run: Train, watched: Seen, student: Path) -> None:
    run(scorer=Scorer(), on_policy={"share": 1, "every": 3, "temperature": 0, "max_new_tokens": 3}, learning_rate=1e-2)
    untrained = load_model(student, attention="eager")
    shared = [one for given in watched.given[:3] for one in given]
    assert [greedy(untrained, prompt, len(answer)) for prompt, answer in shared] == [answer for _, answer in shared]
    assert [answer for _, answer in watched.given[2]] != watched.said[2]  # it has learned since
    assert [answer for _, answer in watched.given[3]] == watched.said[3]


def test_the_rows_of_several_updates_are_answered_at_once(run: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    original = TorchRuntime.complete

    def counting(self: TorchRuntime, batch: Sequence[Sequence[int]], sampling: Any) -> Any:
        assert list(map(len, batch)) == sorted(map(len, batch))
        sizes.append(len(batch))
        return original(self, batch, sampling)

    monkeypatch.setattr(TorchRuntime, "complete", counting)
    options = {"batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 6}
    run(scorer=Scorer(), on_policy={"share": 1, "every": 4, "max_new_tokens": 2}, **options)
    assert sizes == [4 * 4, 2 * 4]
    sizes.clear()
    monkeypatch.setattr("slmops.training.on_policy._POSITIONS", 60)
    run("parts", scorer=Scorer(), on_policy={"share": 1, "every": 6, "max_new_tokens": 2}, **options)
    assert sum(sizes) == 24
    assert max(sizes) < 8


def test_the_loss_is_about_the_sampled_tokens_alone(template: Template, monkeypatch: pytest.MonkeyPatch, student: Path) -> None:
    """Prompts 11 12 13 and 21 are answered with 14 15 and the end, and with the end at once."""
    encoded = [Encoded((11, 12, 13, 5, 5, 2), (IGNORED,) * 3 + (5, 5, 2)), Encoded((21, 6, 2), (IGNORED, 6, 2))]
    answers = {(11, 12, 13): (14, 15, END), (21,): (END,)}
    monkeypatch.setattr(TorchRuntime, "complete", lambda _, batch, sampling: [answers[tuple(prompt)] for prompt in batch])
    plan = Updates([[0, 1]], 1, ROWS[:2], encoded, template.tokenizer, 512, seed=1)
    own = OwnSamples(OnPolicySection(share=1), plan, WeightedSum.of((KL,)), Scorer(), None)
    (batch,) = own.batches(0, load_model(student))
    assert batch["input_ids"].tolist() == [[11, 12, 13, 14, 15, 2], [2, 2, 2, 2, 21, 2]]
    assert batch["attention_mask"].tolist() == [[1] * 6, [0] * 4 + [1] * 2]
    assert batch["shift_labels"].tolist() == [14, 15, 2, 2]
    read = batch["input_ids"][:, batch["logits_to_keep"]].flatten()[batch["answer_index"]]
    assert read.tolist() == [13, 14, 15, 21]
    assert batch["signal_ids"][:, 0].tolist() == [WANTED, END, END, WANTED]
    assert own.facts["ended_at_once"] == 1
    assert own.facts["cut_off"] == 0


def test_what_the_teacher_cannot_read_is_not_trained(template: Template, monkeypatch: pytest.MonkeyPatch, student: Path) -> None:
    class Reader(Scorer):
        def score(self, rows: Sequence[Row], samples: Sequence[tuple[int, ...]]) -> list[TopK]:
            return [self._signal(1 + (99 not in sample)) for sample in samples]

    monkeypatch.setattr(TorchRuntime, "complete", lambda _, batch, sampling: [(99, 5, 5), (5, 5, 5)])
    own = own_samples(template, [[0, 1]], OnPolicySection(share=1), scorer=Reader())
    (batch,) = own.batches(0, load_model(student))
    assert batch["shift_labels"].tolist() == [99, 5, 5]
    assert own.facts["tokens"] == 3
    assert own.facts["cut_off"] == 2


def test_a_sample_is_as_long_as_the_longest_answer_and_prompt_and_sample_fit(run: Train, template: Template) -> None:
    scorer, longest = Scorer(), max(len(template.encode(row).answer_ids) for row in ROWS)
    run(scorer=scorer, on_policy={"share": 1})
    assert max(map(len, scorer.seen)) == longest
    scorer, short = Scorer(), max(len(template.encode(row).input_ids) for row in ROWS)
    run("short", scorer=scorer, on_policy={"share": 1, "max_new_tokens": 50}, max_length=short)
    lengths = [len(template.prompt_ids(row)) + len(own) for row, own in zip(scorer.asked, scorer.seen, strict=True)]
    assert max(lengths) == short


def test_a_share_of_nothing_is_no_training_on_samples() -> None:
    assert TrainingSection(on_policy={"share": 0}) == TrainingSection()


def test_a_share_of_one_reads_no_cached_row(run: Train, tmp_path: Path) -> None:
    """Other answers, of as many tokens, make no difference then."""
    on_policy = {"share": 1, "max_new_tokens": 4}
    run(scorer=Scorer(), signals=Untouchable(), on_policy=on_policy, objectives=(CE, KL))
    for name, answer in (("one", "xyz"), ("two", "qqj")):
        rows = [row.with_answer(answer) for row in ROWS]
        run(name, scorer=Scorer(), on_policy=on_policy, rows=rows, objectives=(CE, KL), max_steps=2)
    assert weights(tmp_path / "one") == weights(tmp_path / "two")


def test_a_share_of_the_updates_is_about_samples_and_the_others_about_answers(
    run: Train, template: Template, watched: Seen
) -> None:
    scorer = Scorer()
    trained = run(scorer=scorer, signals=Cached(template), on_policy={"share": 0.5, "every": 4}, max_steps=16)
    answers = {template.encode(row).answer_ids for row in ROWS}
    about_answers = [all(tuple(answer) in answers for _, answer in given) for given in watched.given]
    assert trained.on_policy is not None
    own = trained.on_policy["updates"]
    assert about_answers.count(False) == own
    assert 4 <= own <= 12
    assert trained.on_policy["share"] == own / 16
    assert trained.on_policy["samples"] == own * 4 == len(scorer.seen)
    assert trained.on_policy["tokens"] == sum(map(len, scorer.seen))
    assert trained.on_policy["mean_tokens"] == pytest.approx(trained.on_policy["tokens"] / trained.on_policy["samples"], abs=0.01)
    assert trained.answer_tokens == sum(len(answer) for given in watched.given for _, answer in given)


def test_the_samples_themselves_are_not_learned(run: Train, tmp_path: Path) -> None:
    """Of samples cross-entropy would only confirm what the student says already."""
    for name, objectives in (("both", (CE, KL)), ("alone", (KL,))):
        run(name, scorer=Scorer(), on_policy={"share": 1}, objectives=objectives)
    assert weights(tmp_path / "both") == weights(tmp_path / "alone")


def test_a_loss_that_asks_nothing_of_the_teacher_is_refused(run: Train) -> None:
    with pytest.raises(ConfigError, match=r"no objective compares the student's own samples with the teacher\n.*such as jsd"):
        run(scorer=Scorer(), on_policy={}, objectives=(CE,))
    with pytest.raises(ConfigError, match="no teacher that could score"):
        run(on_policy={})


def test_samples_wait_until_a_loss_on_them_has_a_weight(run: Train, template: Template) -> None:
    rising = {"name": "reverse_kl", "weight": {"from": 0, "to": 1}}
    assert [term.name for term in signal_terms(WeightedSum.of((CE, rising, KL))).terms] == ["reverse_kl", "forward_kl"]
    trained = run(scorer=Scorer(), signals=Cached(template), on_policy={"share": 1}, objectives=(CE, rising))
    assert trained.on_policy is not None
    assert trained.on_policy["updates"] == 3


def test_the_seed_and_the_temperature_decide_what_is_drawn(template: Template, student: Path) -> None:
    model = load_model(student)

    def drawn(seed: int, temperature: float) -> list[tuple[int, ...]]:
        torch.manual_seed(int(10 * temperature))
        own = own_samples(template, [[0, 1], [2, 3]], OnPolicySection(share=1, temperature=temperature), seed=seed)
        return [tuple(answer) for update in (0, 1) for _, answer in parts(own.batches(update, model)[0])]

    state = torch.get_rng_state()
    first = drawn(1, 1.0)
    torch.set_rng_state(state)
    assert drawn(1, 1.0) == first != drawn(2, 1.0)
    assert drawn(1, 0.0) == drawn(2, 0.0) == [tuple(greedy(model, template.prompt_ids(row), 7)) for row in ROWS[:4]]
    assert drawn(1, 0.01) == drawn(1, 0.0)


def test_samples_leave_the_random_numbers_of_the_training_alone(template: Template, student: Path) -> None:
    before = torch.get_rng_state()
    own_samples(template, [[0, 1]], OnPolicySection(share=1)).batches(0, load_model(student))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["forward_kl", "jsd"])
def test_the_student_comes_to_say_what_its_teacher_would(run: Train, name: str, tmp_path: Path, template: Template) -> None:
    trained = run(
        scorer=Scorer(),
        objectives=({"name": name},),
        on_policy={"share": 1, "every": 2, "max_new_tokens": 4},
        max_steps=24,
        batch_size=8,
        learning_rate=2e-2,
        validation=ROWS[:2],
    )
    assert trained.curve[-1]["loss"] < 0.3 * trained.curve[0]["loss"]
    assert all(point["validation"] is not None for point in trained.curve)
    assert greedy(load_model(tmp_path / "model"), template.prompt_ids(ROWS[0]), 1) == [WANTED]


def test_parts_of_an_update_add_up_to_the_whole(run: Train) -> None:
    on_policy = {"share": 1, "temperature": 0, "every": 1, "max_new_tokens": 5}
    whole = run("whole", scorer=Scorer(), on_policy=on_policy, batch_size=8)
    split = run("parts", scorer=Scorer(), on_policy=on_policy, batch_size=2, gradient_accumulation_steps=4)
    assert [point["loss"] for point in split.curve] == pytest.approx([point["loss"] for point in whole.curve], rel=1e-4)


@pytest.mark.parametrize("frozen", [False, True])
def test_weights_are_converted_once_for_all_tokens(template: Template, student: Path, frozen: bool) -> None:
    """And not at every token, which takes longer than to multiply with them."""
    model, section = load_model(student), OnPolicySection(share=1, temperature=0, max_new_tokens=12)
    for weight in model.parameters():
        weight.requires_grad_(not frozen)
    own = own_samples(template, [[0, 1]], section, dtype=torch.bfloat16)
    with CountedCasts() as casts:
        own.batches(0, model)
    layers = sum(isinstance(part, torch.nn.Linear) for part in model.modules())
    assert layers <= casts.of_weights < 2 * layers
    assert all(weight.requires_grad is not frozen for weight in model.parameters())


@pytest.mark.parametrize("lora", [None, LoraSection(r=4, dropout=0.3)], ids=["all weights", "adapter"])
def test_in_bfloat16_samples_are_drawn_too_and_nothing_is_left_changed(
    run: Train, student: Path, monkeypatch: pytest.MonkeyPatch, lora: LoraSection | None
) -> None:
    trainable: list[int] = []
    original = trainer.total_loss

    def watching(model: Any, *rest: Any) -> torch.Tensor:
        assert model.training
        trainable.append(sum(weight.requires_grad for weight in model.parameters()))
        return original(model, *rest)

    monkeypatch.setattr(trainer, "total_loss", watching)
    trained = run(
        scorer=Scorer(),
        on_policy={"share": 1, "every": 2},
        precision="bfloat16",
        lora=lora,
        learning_rate=1e-2,
        freeze_embeddings=True,
    )
    assert trained.on_policy is not None
    assert trained.on_policy["samples"] == 16
    assert len(set(trainable)) == 1
    assert trainable[0] < sum(1 for _ in load_model(student).parameters()) if lora is None else trainable[0] > 0


def test_an_interrupted_run_goes_on_to_the_same_bytes_and_facts(
    run: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: Template
) -> None:
    """Samples are waiting in the checkpoint after the fourth update, for the fifth and sixth."""
    options: dict[str, Any] = {
        "max_steps": 6,
        "checkpoint_seconds": 0,
        "lora": LoraSection(dropout=0.2),
        "on_policy": {"share": 0.7, "every": 3},
        "objectives": (CE, KL),
        "learning_rate": 1e-2,
    }
    whole = run("whole", scorer=Scorer(), signals=Cached(template), **{**options, "checkpoint_seconds": 1e9})
    with interrupted_in(monkeypatch, 5):
        run("model", scorer=Scorer(), signals=Cached(template), **options)
    assert '"waiting":{"4":' in (tmp_path / "model-work" / "checkpoint-4" / "own_samples.json").read_text()
    resumed = run("model", scorer=Scorer(), signals=Cached(template), **options)
    assert weights(tmp_path / "model") == weights(tmp_path / "whole")
    assert resumed.curve[-1] == whole.curve[-1]
    assert resumed.on_policy is not None
    assert whole.on_policy is not None
    assert {**resumed.on_policy, "seconds": 0} == {**whole.on_policy, "seconds": 0}


def test_samples_that_wait_are_part_of_a_checkpoint(template: Template, student: Path, tmp_path: Path) -> None:
    def own() -> OwnSamples:
        return own_samples(template, [[0, 1], [2, 3], [4, 5]], OnPolicySection(share=1, every=3))

    first, again, model = own(), own(), load_model(student)
    first.batches(0, model)
    first.save(tmp_path)
    again.load(tmp_path)
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    for update in (1, 2):
        (expected,), (found,) = first.batches(update, model), again.batches(update, model)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
    assert again.facts == first.facts
    assert again.describe().startswith("6 own samples of ")


def test_pairs_of_texts_are_learned_beside_own_samples(run: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = [{"premise": f"text {number}", "hypothesis": f"other {number}"} for number in range(8)]
    labels = ("entailment", "contradiction")
    plain = [Row.of(f"question {number}", labels[number % 2]) for number in range(8)]
    rows = [replace(row, fields=own) for row, own in zip(plain, fields, strict=True)]
    counted: list[int] = []
    original = PairLoss.__call__

    def counting(self: PairLoss, batch: dict[str, torch.Tensor], **more: Any) -> torch.Tensor:
        counted.append(len(batch["pair_different"]))
        return original(self, batch, **more)

    monkeypatch.setattr(PairLoss, "__call__", counting)
    scorer = Scorer()
    contrastive = {"name": "contrastive", "weight": 0.5}
    run(scorer=scorer, rows=rows, objectives=(KL, contrastive), on_policy=OnPolicySection(share=1.0, every=2), max_steps=2)
    assert len(scorer.seen) == 8
    assert counted == [4, 4]

"""Losses of the user's own as torch modules: on logits and labels, and on pairs of rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.errors import ConfigError, TrainingError
from slmops.models.load import load_model
from slmops.sections import LoraSection, TrainingSection
from slmops.testing.objectives import check_objective, example_answers
from slmops.training.batches import padded
from slmops.training.inputs import encode_rows
from slmops.training.loop import Trained, train
from slmops.training.objectives import CrossEntropy, WeightedSum
from slmops.training.objectives.modules import OwnPairLoss
from slmops.training.objectives.own import objectives_with, open_own
from slmops.training.row_pairs import row_pairs

EXAMPLES = Path(__file__).parents[3] / "examples" / "my_loss.py"
HEAD = "import torch\nimport torch.nn.functional as F\nfrom torch import nn\n\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def into(body: str) -> Path:
        file = tmp_path / "my_loss.py"
        file.write_text(HEAD + body, encoding="utf-8")
        return file

    return into


def module(parameters: str, *body: str, init: str = "pass") -> str:
    lines = "".join(f"        {line}\n" for line in body)
    made = f"    def __init__(self):\n        super().__init__()\n        {init}\n"
    return f"class Loss(nn.Module):\n{made}    def forward(self, {parameters}):\n{lines}"


@pytest.mark.parametrize("name", ["FocalLoss", "LabelSmoothing", "ContrastiveLoss"])
def test_the_examples_keep_the_contract(name: str) -> None:
    check_objective(open_own({"name": f"{EXAMPLES}:{name}"}))


def test_a_loss_that_is_a_mean_has_the_sum_of_its_tokens_losses() -> None:
    answers = example_answers()
    plain = CrossEntropy()(answers)
    focal = WeightedSum.of([{"name": f"{EXAMPLES}:FocalLoss", "gamma": 1.0, "weight": 2.0}])
    expected = 2 * ((1 - torch.exp(-plain)) * plain).sum()
    assert float(focal(answers).sum()) == pytest.approx(float(expected), rel=1e-5)
    smoothed = WeightedSum.of([{"name": f"{EXAMPLES}:LabelSmoothing", "smoothing": 0.2}])(answers)
    known = torch.nn.functional.cross_entropy(answers.logits, answers.labels, reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(smoothed, known)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_loss_may_be_a_mean_a_sum_or_each(write: Callable[[str], Path], reduction: str) -> None:
    file = write(f"class Loss(nn.CrossEntropyLoss):\n    def __init__(self):\n        super().__init__(reduction={reduction!r})\n")
    answers = example_answers()
    loss = WeightedSum.of([{"name": str(file)}])
    torch.testing.assert_close(loss(answers).sum(), CrossEntropy()(answers).sum())


def test_two_rows_of_one_label_and_of_two_are_compared_by_the_margin() -> None:
    """Embeddings at right angles are the square root of 2 apart, and opposite ones 2."""
    own = open_own({"name": f"{EXAMPLES}:ContrastiveLoss", "margin": 1.5})
    assert isinstance(own, OwnPairLoss)
    one = torch.tensor([[1.0, 0.0]])
    for other, different, expected in (
        ([[0.0, 1.0]], False, 2.0),
        ([[0.0, 1.0]], True, (1.5 - 2**0.5) ** 2),
        ([[-1.0, 0.0]], True, 0.0),
        ([[-1.0, 0.0]], False, 4.0),
    ):
        losses = own.losses(one, torch.tensor(other), torch.tensor([different]))
        assert losses.tolist() == pytest.approx([expected], abs=1e-4)


TOKENS, PAIRS = "logits, labels", "output1, output2, label"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (module("a", "return a.mean()"), r"my_loss.py:9: forward takes a, neither two nor three things\n.*logits, labels.*label\)"),
        (module("*inputs", "return 0"), "forward takes nothing by name"),
        (module("anchor, positive, negative", "return 0"), r"my_loss.py:9: a loss on triplets \(anchor, positive, negative\)"),
        (module(TOKENS, "x = 1", "return logits.nothing"), r"my_loss.py:11: the loss failed on inputs of .* \[6, 11\], \[6\]"),
        (module(TOKENS, "return 3.0"), r"my_loss.py:9: the loss is 3.0, which is no tensor"),
        (module(TOKENS, "return F.cross_entropy(logits.detach(), labels)"), "the loss has no gradient.*\n.*detach"),
        (module(TOKENS, "return F.cross_entropy(logits, labels) / 0"), r"my_loss.py:9: the loss of 6 positions is not finite"),
        (module(TOKENS, "return F.cross_entropy(logits, labels, reduction='none')[:, None]"), r"has the shape \[6, 1\]"),
        (module(TOKENS, "return F.cross_entropy(logits, labels) ** 2"), "neither the mean .* nor the sum of what each costs alone"),
        (module(TOKENS, "return -F.cross_entropy(logits, labels)"), "a likelier label does not cost less"),
        (module(TOKENS, "return F.cross_entropy(F.dropout(logits, 0.5), labels)"), "asked twice about the same, the loss differs"),
        (module(PAIRS, "return (F.pairwise_distance(output1, output2, keepdim=True) - label).pow(2).mean()"), "keepdim=True"),
        (
            module(PAIRS, "d = ((output1 - output2) ** 2).sum(-1).sqrt()", "return (label * (1 - d) + (1 - label) * d).mean()"),
            "a gradient of equal embeddings is not finite",
        ),
        (module(PAIRS, "return 0 * (output1 * output2).sum(-1).mean()"), "nothing has a gradient"),
        (module(PAIRS, "return label.mean()"), "the loss has no gradient"),
        (
            module(TOKENS, "return self.scale * F.cross_entropy(logits, labels)", init="self.scale = nn.Parameter(torch.ones(()))"),
            r"it has weights of its own \(scale\), and only the model's are trained",
        ),
        (
            module(
                TOKENS, "self.seen += 1", "return F.cross_entropy(logits, labels)",
                init="self.register_buffer('seen', torch.zeros(()))",
            ),
            "keeps something from one call to the next",
        ),
        ("class Loss(nn.Module:\n", r"my_loss.py:5: the file cannot be run: SyntaxError"),
        ("x = [1][2]\n", r"my_loss.py:5: the file cannot be run: IndexError"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_module_is_said_with_its_line(write: Callable[[str], Path], text: str, problem: str) -> None:
    file = write(text)
    with pytest.raises(ConfigError, match=problem):
        open_own({"name": f"{file}:Loss"})


def test_cross_entropy_goes_beside_pairs_and_is_replaced_by_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    focal, pairs = f"{EXAMPLES}:FocalLoss", f"{EXAMPLES}:ContrastiveLoss"
    plain = {"name": "cross_entropy"}
    assert objectives_with(focal, None) == [{"name": focal}]
    assert "FocalLoss of my_loss.py on answer tokens with weight 1, in place of cross-entropy" in capsys.readouterr().err
    assert objectives_with(focal, 0.5) == [plain, {"name": focal, "weight": 0.5}]
    assert objectives_with(pairs, None) == [plain, {"name": pairs}]
    assert (
        "ContrastiveLoss of my_loss.py on pairs of rows with weight 1, beside cross-entropy with weight 1"
        in capsys.readouterr().err
    )
    with pytest.raises(ConfigError, match="names no Python file"):
        objectives_with("contrastive", None)
    with pytest.raises(ConfigError, match="did you mean 'FocalLoss'"):
        objectives_with(f"{EXAMPLES}:Focalloss", None)
    with pytest.raises(ConfigError, match="ContrastiveLoss alone teaches no answers"):
        WeightedSum.of([{"name": pairs}])


def encoded(count: int) -> list[Encoded]:
    return [Encoded((100 + row, 7, 1), (-100, 7, 1)) for row in range(count)]


def test_rows_are_paired_by_their_labels_however_they_are_batched() -> None:
    labels = ("refund", "delivery", "Refund.", "account", "delivery")
    rows = [Row.of(f"question {row}", label) for row, label in enumerate(labels)]
    names = ("refund", "delivery", "refund", "account", "delivery")
    plan = [[0, 1, 2, 3, 4]] * 200
    pairs = [pair for batch in row_pairs(plan, rows, encoded(5), 3) for pair in batch]
    for pair in pairs:
        (left,), (right,) = pair.left, pair.right
        assert pair.different == (names[left - 100] != names[right - 100])
        assert left != right
    of_first = [pair for pair in pairs if pair.left == (100,)]
    assert 70 < sum(pair.different for pair in of_first) < 130
    assert all(pair.different for pair in pairs if pair.left == (103,))  # the only row of its label
    parts = row_pairs([part for batch in plan for part in (batch[:2], batch[2:])], rows, encoded(5), 3)
    assert [pair for batch in parts for pair in batch] == pairs


@pytest.mark.parametrize(
    ("answers", "problem"), [(("a", "a", "A."), "all rows have the answer 'a'"), (("a", "b", "c"), "no two rows have the same")]
)
def test_rows_that_make_no_pairs_are_an_error(answers: tuple[str, ...], problem: str) -> None:
    rows = [Row.of(f"question {row}", answer) for row, answer in enumerate(answers)]
    with pytest.raises(TrainingError, match=problem):
        row_pairs([[0, 1, 2]], rows, encoded(3), 0)


ROWS = [
    Row.of(f"please {word} number {n}", label) for n in range(6) for word, label in (("parcel", "delivery"), ("money", "refund"))
]
Train = Callable[..., Trained]


@pytest.fixture
def run(tiny_model: Path, template: Template, tmp_path: Path) -> Train:
    def call(name: str, *objectives: dict[str, Any], **values: Any) -> Trained:
        given = {"max_steps": 4, "batch_size": 12, "precision": "float32", "learning_rate": 5e-3, **values}
        section = TrainingSection(objectives=objectives, **given)
        return train(
            tiny_model, tmp_path / name, tmp_path / f"{name}-work",
            template=template, rows=ROWS, validation=(), section=section, seed=1, what=name,
        )  # fmt: skip

    return call


def embeddings(model: Path, template: Template) -> torch.Tensor:
    """Of the questions, as the loss sees them, worked out row by row."""
    body = load_model(model, attention="eager").base_model
    _, rows = encode_rows(ROWS, template, 64)
    with torch.no_grad():
        states = [body(**padded([row.input_ids[: row.prompt_length]], 2))[0] for row in rows]
    widths = [row.prompt_length for row in rows]
    return torch.stack(
        [torch.nn.functional.normalize(own[0, -width:].mean(0), dim=0) for own, width in zip(states, widths, strict=True)]
    )


def distances(model: Path, template: Template) -> tuple[float, float]:
    """Mean distance of rows of one label, and of rows of two."""
    apart = torch.cdist(known := embeddings(model, template), known)
    labels = torch.tensor([row.answer == "refund" for row in ROWS])
    same = labels[:, None] == labels[None]
    others = ~torch.eye(len(ROWS), dtype=torch.bool)
    return float(apart[same & others].mean()), float(apart[~same].mean())


PLAIN = {"name": "cross_entropy"}
MARGIN = {"name": f"{EXAMPLES}:ContrastiveLoss"}


@pytest.mark.parametrize("lora", [None, LoraSection(r=4, alpha=8)])
def test_the_margin_loss_brings_rows_of_a_label_together(
    run: Train, template: Template, tiny_model: Path, tmp_path: Path, lora: LoraSection | None
) -> None:
    same, different = distances(tiny_model, template)
    run("margin", PLAIN, MARGIN, max_steps=16, learning_rate=1e-2, lora=lora)
    after_same, after_different = distances(tmp_path / "margin", template)
    assert after_same < same
    assert after_different > different
    assert after_same / after_different < 0.6 * same / different


def test_accumulated_batches_train_as_one_on_pairs_of_rows(run: Train) -> None:
    whole = run("whole", PLAIN, MARGIN)
    parts = run("parts", PLAIN, MARGIN, batch_size=3, gradient_accumulation_steps=4)
    assert [point["loss"] for point in parts.curve] == pytest.approx([point["loss"] for point in whole.curve], rel=1e-4)
    plain = run("plain", PLAIN)
    assert whole.curve[0]["loss"] != pytest.approx(plain.curve[0]["loss"], abs=0.05)


def test_a_mean_over_tokens_is_trained_as_cross_entropy_is(run: Train, write: Callable[[str], Path], tmp_path: Path) -> None:
    """In one batch, in several, and in threads where there are some."""
    own = {"name": str(write(module(TOKENS, "return F.cross_entropy(logits, labels)")))}
    for name, values in (("one", {}), ("several", {"batch_size": 4, "gradient_accumulation_steps": 3})):
        curve, known = (run(f"{name}-{kind}", loss, **values).curve for kind, loss in (("own", own), ("plain", PLAIN)))
        assert [point["loss"] for point in curve] == pytest.approx([point["loss"] for point in known], rel=1e-5)


def test_a_loss_that_fails_on_real_sizes_is_refused_before_an_update(
    run: Train, write: Callable[[str], Path], tmp_path: Path
) -> None:
    body = ("losses = F.cross_entropy(logits, labels, reduction='none')", "return losses / (1.0 if logits.shape[1] < 20 else 0.0)")
    with pytest.raises(ConfigError, match="on the first batch the loss is inf"):
        run("large", {"name": str(write(module(TOKENS, *body)))}, checkpoint_seconds=0)
    assert not list((tmp_path / "large-work").glob("checkpoint-*"))

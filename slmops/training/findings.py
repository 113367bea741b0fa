"""What a rehearsal of a training found: a table for people, facts for JSON, and what stops the run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slmops.errors import FingerprintError, SlmopsError, TrainingError
from slmops.progress import duration

_WEAK = 0.01
_NOTHING = 1e-9
_LONGEST_SHOWN = 60


@dataclass(frozen=True)
class Tokens:
    """Trained tokens of the rows that were looked at.

    Args:
        rows: Rows looked at.
        least: Fewest answer tokens of a row that is trained on.
        median: The same in the middle.
        without: Rows with no answer token.
        too_long: Rows longer than ``max_length``, which are set aside.
        max_length: The bound.
        length: Mean tokens of a row that is trained on, prompt and answer.
    """

    rows: int
    least: int
    median: float
    without: int
    too_long: int
    max_length: int
    length: float

    @property
    def left(self) -> int:
        """Rows that are trained on."""
        return self.rows - self.without - self.too_long


@dataclass(frozen=True)
class Selected:
    """What the loss is about, decoded from a batch.

    Args:
        rows: Rows decoded.
        example: The trained tokens of one of them, as text.
        origin: Where that row comes from.
        wrong: For each row whose trained tokens are not its answer and the end token: where it comes from, and what they say.
    """

    rows: int
    example: str
    origin: str
    wrong: tuple[str, ...] = ()


@dataclass(frozen=True)
class Agreement:
    """The teacher against its own cached signals.

    Args:
        tokens: Answer tokens compared.
        self_kl: Mean KL of the cached signals to the teacher in the student's place, nats a token.
        self_kl_most: What rounding may make of it.
        what: What is compared of cached and live ones: ``a probability``, or ``the entropy`` where tokens were drawn.
        largest: Largest difference of one.
        apart: Sum of the differences of all, as a share of the sum of what is cached.
        apart_most: What rounding may make of it.
    """

    tokens: int
    self_kl: float
    self_kl_most: float
    what: str
    largest: float
    apart: float
    apart_most: float


@dataclass(frozen=True)
class Pull:
    """A term of the loss at the first update: its weight, and the norm of its gradient times that weight."""

    name: str
    weight: float
    norm: float
    needs_signal: bool


@dataclass(frozen=True)
class Cost:
    """What the trainings of the run will take.

    Args:
        trainings: How many there are.
        updates: Of each.
        seconds: Of all, estimated from a timed batch.
        memory_mb: Computed peak, in units of 10⁶ bytes.
        available_mb: What this machine had left.
    """

    trainings: int
    updates: int
    seconds: float
    memory_mb: float
    available_mb: float


@dataclass(frozen=True)
class Findings:
    """All of it; of the teacher there is none where it is not on this machine, and then ``without`` says why."""

    tokens: Tokens
    selected: Selected
    agreement: Agreement | None
    without: str
    loss: float
    pulls: tuple[Pull, ...]
    cost: Cost

    @property
    def ratio(self) -> float | None:
        """Gradient of the strongest term that needs signals, divided by cross-entropy's; ``None`` where one is missing."""
        signals = [pull.norm for pull in self.pulls if pull.needs_signal]
        plain = [pull.norm for pull in self.pulls if pull.name == "cross_entropy"]
        return max(signals) / plain[0] if signals and plain and plain[0] > 0 else None

    @property
    def hints(self) -> tuple[str, ...]:
        """What may be meant otherwise, and stops nothing."""
        strongest = max(self.pulls, key=lambda pull: pull.norm)
        return tuple(
            f"{pull.name} pulls with {pull.norm / strongest.norm:.2%} of the force of {strongest.name}: "
            "raise its weight, or leave it out"
            for pull in self.pulls
            if pull.norm < _WEAK * strongest.norm
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        facts = asdict(self)
        facts["selected"]["wrong"] = list(self.selected.wrong)
        return {**facts, "pulls": list(facts["pulls"]), "ratio": self.ratio, "hints": list(self.hints)}

    def table(self) -> str:
        """For people."""
        rows = [*_of_teacher(self.agreement, self.without), *_of_rows(self.tokens, self.selected), *self._of_training()]
        width = max(len(name) for name, _ in rows)
        return "\n".join(["pre-flight", *(f"  {name:<{width}}  {value}" for name, value in rows)])

    def _of_training(self) -> Iterator[tuple[str, str]]:
        yield "loss", f"{self.loss:.3g} before the first update"
        terms = ", ".join(f"{pull.name} {pull.norm:.3g}" for pull in self.pulls)
        yield "gradients", terms + (f"; signals to cross-entropy {self.ratio:.2g} : 1" if self.ratio is not None else "")
        for hint in self.hints:
            yield "hint", hint
        cost = self.cost
        yield "time", f"about {duration(cost.seconds)} for {cost.trainings} trainings of {cost.updates:,} updates"
        yield "memory", f"about {cost.memory_mb / 1e3:,.1f} GB; {cost.available_mb / 1e3:,.1f} GB are available"


def _of_teacher(agreement: Agreement | None, without: str) -> Iterator[tuple[str, str]]:
    if agreement is None:
        yield "teacher as student", f"not applicable: {without}"
        yield "cached against live", f"not applicable: {without}"
        return
    yield (
        "teacher as student",
        f"KL {agreement.self_kl:.2g} nats a token over {agreement.tokens} tokens (rounding explains {agreement.self_kl_most:.2g})",
    )
    yield (
        "cached against live",
        f"{agreement.what} differs by at most {agreement.largest:.2g}; {agreement.apart:.2g} of what is cached is off "
        f"(rounding explains {agreement.apart_most:.2g})",
    )


def _of_rows(tokens: Tokens, selected: Selected) -> Iterator[tuple[str, str]]:
    right = selected.rows - len(selected.wrong)
    yield "trained text", f"{short(selected.example)!r} ({selected.origin}); the answer in {right} of {selected.rows} rows"
    yield (
        "trained tokens a row",
        f"least {tokens.least}, median {tokens.median:g}; none in {tokens.without / tokens.rows:.1%} of {tokens.rows:,} rows, "
        f"{tokens.too_long / tokens.rows:.1%} set aside as longer than {tokens.max_length}",
    )


def short(text: str) -> str:
    """A text as far as a table has room for it."""
    return text if len(text) <= _LONGEST_SHOWN else text[: _LONGEST_SHOWN - 1] + "…"


def check_tokens(tokens: Tokens) -> None:
    """Stop where there is nothing to train on.

    Raises:
        TrainingError: No row has an answer token, or all are too long.
    """
    if tokens.left:
        return
    if tokens.without == tokens.rows:
        raise TrainingError("no row has an answer token to train on", where="training", fix="label rows, or check the answers")
    raise TrainingError(
        f"none of {tokens.rows:,} rows fits into max_length {tokens.max_length}",
        where="training.max_length",
        fix="raise it, or give shorter rows",
    )


def check_selected(selected: Selected) -> None:
    """Stop where the loss is about something else than the answer.

    Raises:
        TrainingError: Names a row, and the text that would be trained.
    """
    if selected.wrong:
        raise TrainingError(
            f"the trained tokens of {len(selected.wrong)} of {selected.rows} rows are not the answer and its end: "
            f"{selected.wrong[0]}",
            where="training",
            fix="check chat_template or text_template, and that the tokenizer has tokens for the answers",
        )


def check_agreement(agreement: Agreement, where: str) -> None:
    """Stop where the signals are not the teacher's.

    Raises:
        FingerprintError: The live teacher says something else than what is cached.
        TrainingError: The cached signals are not reached by the teacher itself.
    """
    if agreement.apart > agreement.apart_most:
        raise FingerprintError(
            f"the cached signals are not the teacher's: {agreement.apart:.1%} of what is cached is off, "
            f"and rounding explains {agreement.apart_most:.1%}",
            where=where,
            fix="remove the folder; the next run makes them again",
        )
    if not agreement.self_kl <= agreement.self_kl_most:
        raise TrainingError(
            f"the teacher in the student's place is {agreement.self_kl:.3g} nats a token from its own signals, "
            f"and rounding explains {agreement.self_kl_most:.2g}",
            where=where,
            fix="remove the folder; if that does not help, this model's logits are not what its output layer makes",
        )


def check_pulls(loss: float, pulls: Sequence[Pull]) -> None:
    """Stop where no update would change the student for the better.

    Raises:
        TrainingError: The loss or a gradient is not finite, or all gradients are zero.
    """
    problem: SlmopsError | None = None
    if not abs(loss) < float("inf"):
        problem = TrainingError(f"the loss is {loss} before the first update", where="training", fix="use precision: float32")
    elif not all(pull.norm < float("inf") for pull in pulls):
        names = ", ".join(pull.name for pull in pulls if not pull.norm < float("inf"))
        problem = TrainingError(f"the gradient of {names} is not finite", where="training", fix="use precision: float32")
    elif all(pull.norm <= _NOTHING for pull in pulls):
        problem = TrainingError(
            "all gradients are zero: no update would change the student",
            where="training.objectives",
            fix="the student is its teacher already, or all its weights are frozen: cut it, or add cross_entropy",
        )
    if problem is not None:
        raise problem

"""Which engine answers: the fastest in a short measurement that still agrees with float32.

Where the answers are short, or few are left, making another engine ready costs more than it saves, so PyTorch answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slmops.errors import ModelError, ResourceError
from slmops.files import read_json, write_json
from slmops.progress import say
from slmops.runtimes.base import Generation, Runtime, Sampling

RECORD = "engine.json"
"""In a stage's work folder: what was chosen there, so that a resumed run answers with the same engine."""

LONG_ANSWER = 32
"""Answers of fewer tokens cost little beside their prompts, which PyTorch reads as fast as any engine."""

MIN_AGREEMENT = 0.9
"""Least share of next tokens equal to float32's; bfloat16 and 8 bits have 95 to 98 % with SmolLM2-135M."""
_SAMPLE_ROWS, _SAMPLE_TOKENS = 32, 32
_END = -1


@dataclass(frozen=True)
class Trial:
    """What an engine made of the sample.

    Args:
        engine: Registry name.
        precision: Of its weights.
        tokens_per_second: Of new tokens, all rows of the sample together.
        agreement: See :func:`agreement`.
    """

    engine: str
    precision: str
    tokens_per_second: float
    agreement: float


@dataclass(frozen=True)
class Candidate:
    """An engine that could answer.

    Args:
        engine: Registry name.
        cost: About how many seconds it takes to convert and load the model.
        open: Does both.
    """

    engine: str
    cost: float
    open: Callable[[], Runtime]


def settled(engine: str, max_new_tokens: int) -> str:
    """``auto`` becomes ``torch`` where answers are short; for stage keys, so that such a run is the same as without ``auto``."""
    return "torch" if engine == "auto" and max_new_tokens < LONG_ANSWER else engine


def choose(
    reference: Candidate,
    candidates: Sequence[Candidate],
    prompts: Sequence[str],
    *,
    max_new_tokens: int,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[Runtime, list[Trial]]:
    """Measure engines on a sample of the prompts; the fastest one, loaded, and what was measured.

    Args:
        reference: The model in float32, what the others are compared with; it is not chosen unless it is a candidate too.
        candidates: The first answers unless a later one is faster and agrees with the reference in ``MIN_AGREEMENT`` of its
            tokens. A later one is tried only where the time still needed is more than its cost.
        prompts: All that are to be answered.
        max_new_tokens: Of an answer.
        clock: Seconds.
    """
    sample = spread(sorted(prompts, key=len), _SAMPLE_ROWS)
    sampling = Sampling(max_new_tokens=min(max_new_tokens, _SAMPLE_TOKENS))
    loaded: Runtime | None
    loaded, expected, trial = _measured(reference.open(), sample, sampling, clock, None)
    trials = [trial]
    # Answers that reach the sample's limit go on to their own.
    longer = max(1.0, max_new_tokens / sampling.max_new_tokens) if any(_cut(answer) for answer in expected) else 1.0
    tokens_left = _tokens(expected) / max(len(sample), 1) * longer * len(prompts)
    best: Runtime | None = None
    rate = 0.0
    for candidate in candidates:
        left = tokens_left / rate if best is not None else 0.0
        if best is not None and candidate.cost >= left:
            say(f"  {candidate.engine} is not tried: {left:.0f} s are left and making it ready takes {candidate.cost:.0f} s")
            continue
        if candidate is not reference:
            loaded = None  # one model less in memory while the next is loaded
            try:
                loaded, _, trial = _measured(candidate.open(), sample, sampling, clock, expected)
            except (ModelError, ResourceError) as error:
                if best is None:
                    raise
                say(f"  {candidate.engine} is not used: {error.what}")
                continue
            trials.append(trial)
        if best is None or (trial.tokens_per_second > rate and trial.agreement >= MIN_AGREEMENT):
            best, rate = loaded, trial.tokens_per_second
    assert best is not None, "there is always a first candidate"
    for trial in trials:
        say(f"  {trial.engine} {trial.precision}: {trial.tokens_per_second:,.0f} tokens/s, {trial.agreement:.1%} as float32")
    say(f"  {best.info.name} {best.info.precision} answers")
    return best, trials


def agreement(reference: Sequence[Generation], found: Sequence[Generation]) -> float:
    """Of the next tokens that both models chose after the same text, the share that is equal.

    Each pair of answers counts up to its first difference, since what follows a difference is another text; the end of an
    answer counts as a token.
    """
    equal = chosen = 0
    for left, right in zip(reference, found, strict=True):
        for ours, theirs in zip(_choices(left), _choices(right), strict=False):
            chosen += 1
            if ours != theirs:
                break
            equal += 1
    return equal / chosen if chosen else 1.0


def spread(items: Sequence[str], count: int) -> list[str]:
    """At most so many items, evenly spread over the sequence."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]


def read_record(work: Path) -> Mapping[str, Any] | None:
    """What an earlier run chose in this work folder."""
    file = work / RECORD
    return dict(read_json(file)) if file.is_file() else None


def write_record(work: Path, runtime: Runtime, trials: Sequence[Trial]) -> None:
    """Keep the choice for a run that continues this one."""
    work.mkdir(parents=True, exist_ok=True)
    record = {"engine": runtime.info.name, "precision": runtime.info.precision, "trials": [asdict(trial) for trial in trials]}
    write_json(work / RECORD, record)


def _measured(
    runtime: Runtime,
    prompts: Sequence[str],
    sampling: Sampling,
    clock: Callable[[], float],
    expected: Sequence[Generation] | None,
) -> tuple[Runtime, list[Generation], Trial]:
    """The runtime, its answers and how it did; without ``expected`` it is the reference itself."""
    runtime.generate(prompts[:1], Sampling(max_new_tokens=2))  # warm-up
    started = clock()
    answers = runtime.generate(prompts, sampling)
    rate = _tokens(answers) / max(clock() - started, 1e-9)
    return runtime, answers, Trial(runtime.info.name, runtime.info.precision, rate, agreement(expected or answers, answers))


def _choices(answer: Generation) -> tuple[int, ...]:
    return answer.token_ids if _cut(answer) else (*answer.token_ids, _END)


def _cut(answer: Generation) -> bool:
    return answer.finish_reason == "length"


def _tokens(answers: Sequence[Generation]) -> int:
    return sum(len(_choices(answer)) for answer in answers)

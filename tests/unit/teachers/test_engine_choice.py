"""The engine that answers is the fastest of those that agree with float32, and is measured only where that pays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from slmops.data.rows import Row
from slmops.data.templates import Template
from slmops.errors import ModelError, TeacherError, UsageError
from slmops.runtimes.base import Generation, RuntimeInfo, Sampling
from slmops.signals.forms import TopKForm
from slmops.teachers.converting import converting_candidates, open_engine, weight_precision
from slmops.teachers.engines import (
    LONG_ANSWER,
    Candidate,
    agreement,
    choose,
    read_record,
    settled,
    spread,
    write_record,
)
from slmops.teachers.local import LocalTeacher

ROWS = [Row.of(text) for text in ("where is my parcel", "refund the shoes", "hi")]


def said(*token_ids: int, ended: bool = False) -> Generation:
    return Generation("", token_ids, "stop" if ended else "length", 1)


class Clock:
    """A clock that only its engines move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class TimedRuntime:
    """Takes so many seconds a prompt, and gives tokens of which one in ``wrong_every`` differs from another engine's."""

    def __init__(self, name: str, clock: Clock, seconds: float, wrong_every: int = 10**9) -> None:
        self.info = RuntimeInfo(name, "int8", 512, batch_dependent=False)
        self._clock, self._seconds, self._wrong_every = clock, seconds, wrong_every

    def generate(self, prompts: Sequence[str], sampling: Sampling) -> list[Generation]:
        self._clock.now += self._seconds * len(prompts)
        wrong = self._wrong_every
        return [said(*(-7 if place % wrong == wrong - 1 else place for place in range(sampling.max_new_tokens))) for _ in prompts]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def candidate(clock: Clock, name: str, seconds: float, *, cost: float = 0.0, wrong_every: int = 10**9) -> Candidate:
    return Candidate(name, cost, lambda: TimedRuntime(name, clock, seconds, wrong_every))


def cannot(name: str) -> Candidate:
    def fail() -> TimedRuntime:
        raise ModelError("no such architecture")

    return Candidate(name, 0.0, fail)


def chosen(clock: Clock, *candidates: Candidate, rows: int = 1000, tokens: int = 64) -> tuple[str, list[str]]:
    """Name of the chosen engine, and of those that were measured."""
    reference = candidate(clock, "float32", 1.0)
    runtime, trials = choose(reference, candidates, ["a prompt"] * rows, max_new_tokens=tokens, clock=clock)
    return runtime.info.name, [trial.engine for trial in trials]


def test_the_fastest_engine_answers(clock: Clock) -> None:
    found = chosen(clock, candidate(clock, "torch", 0.5), candidate(clock, "fast", 0.1), candidate(clock, "slow", 2.0))
    assert found == ("fast", ["float32", "torch", "fast", "slow"])


def test_a_faster_engine_that_says_something_else_does_not(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    found = chosen(clock, candidate(clock, "torch", 0.5), candidate(clock, "crude", 0.1, wrong_every=5))
    assert found == ("torch", ["float32", "torch", "crude"])
    assert "crude int8: 320 tokens/s, 80.0% as float32" in capsys.readouterr().err


def test_an_engine_that_cannot_take_the_model_is_passed_over(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    found = chosen(clock, candidate(clock, "torch", 0.5), cannot("other"), candidate(clock, "fast", 0.1))
    assert found == ("fast", ["float32", "torch", "fast"])
    assert "other is not used: no such architecture" in capsys.readouterr().err


@pytest.mark.parametrize(("rows", "engine"), [(20, "torch"), (2000, "fast")])
def test_converting_has_to_cost_less_than_what_is_left(clock: Clock, rows: int, engine: str) -> None:
    # torch: 32 tokens in half a second, so 20 rows of 64 tokens take 20 s and 2,000 rows 2,000 s
    found, _ = chosen(clock, candidate(clock, "torch", 0.5), candidate(clock, "fast", 0.1, cost=30.0), rows=rows)
    assert found == engine


def test_once_a_fast_engine_is_found_a_costly_one_is_not_tried(clock: Clock) -> None:
    fast, other = candidate(clock, "fast", 0.01), candidate(clock, "other", 0.005, cost=100.0)
    assert chosen(clock, candidate(clock, "torch", 0.5), fast, other)[1] == ["float32", "torch", "fast"]


def test_a_float32_teacher_is_measured_once(clock: Clock) -> None:
    own = candidate(clock, "torch", 0.5)
    runtime, trials = choose(own, [own, candidate(clock, "slow", 0.6)], ["a prompt"] * 99, max_new_tokens=64, clock=clock)
    assert (runtime.info.name, [trial.engine for trial in trials]) == ("torch", ["torch", "slow"])


def test_agreement_counts_choices_after_the_same_text() -> None:
    same, differs = said(1, 2, 3, 4), said(1, 9, 3, 4)
    assert agreement([same], [same]) == 1.0
    assert agreement([same], [differs]) == 1 / 2  # what follows the difference is another text
    assert agreement([same, same], [same, differs]) == 5 / 6
    assert agreement([said(1, 2, ended=True)], [said(1, 2, ended=True)]) == 1.0
    assert agreement([said(1, 2, ended=True)], [said(1, 2, 3)]) == 2 / 3  # one ends, the other goes on
    assert agreement([], []) == 1.0


def test_the_sample_has_short_and_long_prompts() -> None:
    assert spread(list("abcdefgh"), 4) == ["a", "c", "e", "g"]
    assert spread(list("abc"), 4) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("engine", "tokens", "expected"),
    [("auto", LONG_ANSWER - 1, "torch"), ("auto", LONG_ANSWER, "auto"), ("ort-genai", 4, "ort-genai"), ("torch", 500, "torch")],
)
def test_short_answers_are_left_to_torch(engine: str, tokens: int, expected: str) -> None:
    assert settled(engine, tokens) == expected


# With a real, tiny model


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SLMOPS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def teach(tiny_model: Path, template: Template, tmp_path: Path, own_cache: Path) -> Callable[..., LocalTeacher]:
    def load(engine: str, max_new_tokens: int = LONG_ANSWER, work: str = "work") -> LocalTeacher:
        return LocalTeacher.fitting(
            tiny_model, template, "float32", engine=engine, rows=ROWS, max_new_tokens=max_new_tokens, work=tmp_path / work
        )

    return load


def test_a_converted_engine_answers_as_torch_does(teach: Callable[..., LocalTeacher], own_cache: Path) -> None:
    fast, reference = teach("openvino-genai"), teach("torch")
    assert fast.identity == {"engine": "openvino-genai", "precision": "int8"}
    assert reference.identity == {"engine": "torch", "precision": "float32"}
    assert [one.text for one in fast.answer(ROWS, Sampling(2))] == [one.text for one in reference.answer(ROWS, Sampling(2))]
    (converted,) = (own_cache / "models").glob("openvino-genai-int8-*")
    made = (converted / "model.gguf").stat().st_mtime_ns
    teach("openvino-genai")
    assert (converted / "model.gguf").stat().st_mtime_ns == made


def test_weights_have_sixteen_bits_only_where_bfloat16_is_multiplied() -> None:
    assert weight_precision("openvino-genai", "bfloat16") == "float16"
    assert weight_precision("openvino-genai", "float32") == "int8"
    assert weight_precision("ort-genai", "bfloat16") == "int8"


def test_a_converted_engine_has_no_signals(teach: Callable[..., LocalTeacher]) -> None:
    with pytest.raises(TeacherError, match="openvino-genai gives no distributions"):
        teach("openvino-genai").signals([], TopKForm(4))


def test_few_rows_are_answered_by_torch_and_a_resumed_run_does_not_measure_again(
    teach: Callable[..., LocalTeacher], tmp_path: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert teach("auto").identity["engine"] == "torch"
    assert "openvino-genai is not tried: " in capsys.readouterr().err
    assert not (own_cache / "models").exists()
    record = read_record(tmp_path / "work")
    assert record is not None
    assert (record["engine"], record["precision"], record["trials"][0]["agreement"]) == ("torch", "float32", 1.0)
    teach("auto")
    assert capsys.readouterr().err == ""


def test_a_resumed_run_keeps_the_engine_it_began_with(teach: Callable[..., LocalTeacher], tmp_path: Path) -> None:
    write_record(tmp_path / "work", teach("openvino-genai", work="other").runtime, [])
    assert teach("auto").identity["engine"] == "openvino-genai"


def test_short_answers_leave_no_record(teach: Callable[..., LocalTeacher], tmp_path: Path) -> None:
    assert teach("auto", max_new_tokens=4).identity["engine"] == "torch"
    assert read_record(tmp_path / "work") is None


def test_both_converting_engines_are_candidates_and_cheaper_once_converted(tiny_model: Path, own_cache: Path) -> None:
    before = {found.engine: found.cost for found in converting_candidates(tiny_model, 10_000_000, "float32")}
    assert list(before) == ["openvino-genai", "ort-genai"]
    open_engine("openvino-genai", tiny_model, "float32")
    after = {found.engine: found.cost for found in converting_candidates(tiny_model, 10_000_000, "float32")}
    assert after["openvino-genai"] < before["openvino-genai"]
    assert after["ort-genai"] == before["ort-genai"]


def test_an_unknown_engine_is_refused(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="unknown runtime 'vllm'"):
        open_engine("vllm", tiny_model, "auto")

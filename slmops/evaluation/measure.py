"""Measure one model in a process of its own: quality, times, requests a second, memory, CPU and energy.

``python -m slmops.evaluation.measure SPEC.json`` is the process; :func:`measure` starts it. One process a model keeps
memory figures honest and lets no engine warm another's caches.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmops.data.rows import Row
from slmops.errors import SlmopsError
from slmops.evaluation.running import LEVELS
from slmops.evaluation.systems import RESULT, judged
from slmops.files import digest, read_json, read_jsonl, write_json
from slmops.progress import progress, say
from slmops.sections import ComparisonSection, Section

if TYPE_CHECKING:
    from slmops.data.chat import ChatTemplate
    from slmops.runtimes.base import Runtime, Sampling

_WARM_UP = 5
TFIDF = "tfidf"


class MeasureSpec(Section):
    """What the process is told.

    Args:
        runtime: Name of the engine, or ``tfidf`` for the baseline.
        model: Folder of the model; for the baseline, the file of labelled rows.
        test: File of test rows.
        task_type: With ``task``, how answers are scored.
        task: Options of the task type.
        threads: CPU threads; ``None`` leaves it to the engine.
        latency_requests: Timed single requests.
        batch_size: Requests at once.
        max_new_tokens: Longest answer.
        chat_template: As in ``data.templates.choose_template``; ``None``: the folder's own.
        text_template: Literal text with slots in place of it.
        concurrency: Batch sizes whose requests a second are measured; 1 is what the single requests give.
    """

    runtime: str
    model: Path
    test: Path
    task_type: str
    task: dict[str, Any]
    threads: int | None
    latency_requests: int
    batch_size: int
    max_new_tokens: int
    concurrency: tuple[int, ...] = LEVELS
    chat_template: str | None = None
    text_template: str | None = None

    @classmethod
    def of(cls, section: ComparisonSection, **rest: Any) -> MeasureSpec:
        """A measurement with the requests, batches and threads of a recipe's section, and the rest as it is given."""
        return cls(
            threads=section.threads,
            latency_requests=section.latency_requests,
            batch_size=section.batch_size,
            concurrency=section.concurrency,
            **rest,
        )


def measure(spec: MeasureSpec, folder: Path) -> dict[str, Any]:
    """Run the measurement in a new process and return what it found (also written to ``folder/result.json``).

    Raises:
        SlmopsError: The process failed; the message has the end of what it printed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "spec.json", spec.model_dump(mode="json"))
    command = [sys.executable, "-m", "slmops.evaluation.measure", str(folder / "spec.json")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, errors="replace") as process:
        assert process.stderr is not None
        tail: list[str] = []
        for line in process.stderr:
            tail = [*tail[-15:], line.rstrip()]
            if line.startswith("  "):
                say(line.rstrip())
    if process.returncode != 0:
        raise SlmopsError(
            f"measuring {spec.model} failed:\n" + "\n".join(tail),
            where=spec.runtime,
            fix="run the same command again; it continues",
        )
    result: dict[str, Any] = read_json(folder / RESULT)
    return result


def _run(spec: MeasureSpec, folder: Path) -> None:
    runtime, chat, parameters = _open(spec)
    write_json(folder / RESULT, measure_runtime(spec, runtime, chat) | {"parameters": parameters})


def measure_runtime(spec: MeasureSpec, runtime: Runtime, chat: ChatTemplate | None) -> dict[str, Any]:
    """Measure a loaded model in this process, whose memory is in the figures.

    Args:
        spec: What is asked; its engine and folder are not read.
        runtime: The model.
        chat: Renders its prompts; ``None``: plain questions.
    """
    from slmops.evaluation.memory import peak_mb, resident_mb
    from slmops.evaluation.running import batches, levels_of, spread, stream_one, times_of, watched
    from slmops.runtimes.base import Sampling
    from slmops.tasks.base import open_task

    rows = [Row.from_dict(value) for value in read_jsonl(spec.test)]
    task = open_task(spec.task_type, spec.task)
    sampling = Sampling(max_new_tokens=spec.max_new_tokens)
    prompts = [chat.render(row.messages) if chat else row.question for row in rows]

    for index in spread(len(prompts), _WARM_UP):
        runtime.generate([prompts[index]], sampling)
    process_mb = resident_mb()
    asked = spread(len(prompts), spec.latency_requests)
    with watched() as used:
        singles = [stream_one(runtime, prompts[index], sampling) for index in asked]
    single = times_of(singles, streamed=spec.runtime != TFIDF)
    levels = []
    for size in sorted(set(spec.concurrency) - {1}):
        count = -(-max(spec.latency_requests, 2 * size) // size) * size
        levels.append(batches(runtime, [prompts[index] for index in spread(len(prompts), count)], sampling, size))
    answers, batched = _answer(runtime, prompts, sampling, spec)
    return {
        "runtime": runtime.info.name,
        "precision": runtime.info.precision,
        "process_mb": round(process_mb, 1),
        "peak_process_mb": round(peak_mb(), 1),
        **single,
        "requests_per_s_batched": batched,
        "throughput": levels_of(single, levels, spec.concurrency),
        "cpu_cores_used": round(used.cpu_cores, 3),
        "joules": used.joules,
        "energy": used.energy,
        "decoding": {
            **decoding(sampling, prompts, chat, runtime.info.batch_dependent),
            "batch_size": spec.batch_size,
            **_compared({index: one.text for index, one in zip(asked, singles, strict=True)}, answers),
        },
        **judged(task, answers, rows),
    }


def _open(spec: MeasureSpec) -> tuple[Runtime, ChatTemplate | None, int | None]:
    """The loaded model, what renders its prompts (``None``: plain questions) and, where it says so, its parameters."""
    from slmops.evaluation.baseline import TfidfBaseline
    from slmops.runtimes.base import open_runtime
    from slmops.tasks.base import open_task

    if spec.runtime != TFIDF:
        return open_runtime(spec.runtime, spec.model, threads=spec.threads), _chat(spec), None
    task = open_task(spec.task_type, spec.task)
    labelled = [Row.from_dict(value) for value in read_jsonl(spec.model)]
    baseline = TfidfBaseline.fit([row.with_answer(task.parse(str(row.answer))) for row in labelled])
    return baseline, None, baseline.parameters


def _chat(spec: MeasureSpec) -> ChatTemplate:
    from slmops.data.chat import ChatTemplate

    if spec.chat_template is None and spec.text_template is None:
        return ChatTemplate.load(spec.model)
    from slmops.data.templates import choose_template
    from slmops.models.load import load_tokenizer

    return choose_template(load_tokenizer(spec.model), spec.chat_template or "own", spec.text_template).chat


def _answer(runtime: Runtime, prompts: Sequence[str], sampling: Sampling, spec: MeasureSpec) -> tuple[list[str], float]:
    """The answer to each prompt, in order, and how many came a second; batches are of prompts about as long."""
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    answers: dict[int, str] = {}
    started = time.perf_counter()
    with progress(f"test answers, {spec.runtime}", len(prompts), "rows") as advance:
        for start in range(0, len(order), spec.batch_size):
            chosen = order[start : start + spec.batch_size]
            for index, generation in zip(chosen, runtime.generate([prompts[index] for index in chosen], sampling), strict=True):
                answers[index] = generation.text
            advance(len(chosen))
    rate = len(prompts) / (time.perf_counter() - started)
    return [answers[index] for index in range(len(prompts))], rate


def decoding(sampling: Sampling, prompts: Sequence[Any], chat: ChatTemplate | None, batch_dependent: bool | None) -> dict[str, Any]:
    """How answers were made, for ``decoding`` of a result.

    Args:
        sampling: How the next token is chosen.
        prompts: What was asked; a hash of it tells whether two measurements asked the same.
        chat: The template; ``None`` where it is not known, or there is none.
        batch_dependent: Whether an answer can depend on what else is in the batch; ``None``: unknown.
    """
    return {
        "sampling": {**asdict(sampling), "stop": list(sampling.stop)},
        "template": digest(asdict(chat)) if chat else None,
        "prompts": digest(list(prompts)),
        "batch_dependent": batch_dependent,
    }


def _compared(alone: Mapping[int, str], together: Sequence[str]) -> dict[str, int]:
    """How many prompts were answered alone and in a batch, and how many of these answers differ."""
    return {"compared": len(alone), "differing": sum(text != together[index] for index, text in alone.items())}


if __name__ == "__main__":
    _spec_file = Path(sys.argv[1])
    _run(MeasureSpec.model_validate(read_json(_spec_file)), _spec_file.parent)

"""Measure one model in a process of its own: quality, latency, requests a second, memory.

``python -m slmops.evaluation.measure SPEC.json`` is the process; :func:`measure` starts it. One process a model keeps
memory figures honest and lets no engine warm another's caches.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slmops.config import Section
from slmops.data.rows import Row
from slmops.errors import SlmopsError
from slmops.evaluation.systems import RESULT, judged
from slmops.files import read_json, read_jsonl, write_json
from slmops.progress import progress, say

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
    from slmops.data.chat import ChatTemplate
    from slmops.evaluation.memory import resident_mb
    from slmops.runtimes.base import Runtime, Sampling, open_runtime
    from slmops.tasks.base import open_task

    rows = [Row.from_dict(value) for value in read_jsonl(spec.test)]
    task = open_task(spec.task_type, spec.task)
    sampling = Sampling(max_new_tokens=spec.max_new_tokens)
    parameters: int | None = None
    runtime: Runtime
    if spec.runtime == TFIDF:
        from slmops.evaluation.baseline import TfidfBaseline

        labelled = [Row.from_dict(value) for value in read_jsonl(spec.model)]
        runtime = baseline = TfidfBaseline.fit([row.with_answer(task.parse(str(row.answer))) for row in labelled])
        parameters = baseline.parameters
        prompts = [row.question for row in rows]
    else:
        runtime = open_runtime(spec.runtime, spec.model, threads=spec.threads)
        chat = ChatTemplate.load(spec.model)
        prompts = [chat.render(row.messages) for row in rows]

    for prompt in _spread(prompts, _WARM_UP):
        runtime.generate([prompt], sampling)
    process_mb = resident_mb()
    latencies = []
    for prompt in _spread(prompts, spec.latency_requests):
        started = time.perf_counter()
        runtime.generate([prompt], sampling)
        latencies.append((time.perf_counter() - started) * 1000)

    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    answers: dict[int, str] = {}
    started = time.perf_counter()
    with progress(f"test answers, {spec.runtime}", len(prompts), "rows") as advance:
        for start in range(0, len(order), spec.batch_size):
            chosen = order[start : start + spec.batch_size]
            for index, generation in zip(chosen, runtime.generate([prompts[index] for index in chosen], sampling), strict=True):
                answers[index] = generation.text
            advance(len(chosen))
    batched = len(prompts) / (time.perf_counter() - started)

    in_order = [answers[index] for index in range(len(prompts))]
    write_json(
        folder / RESULT,
        {
            "runtime": runtime.info.name,
            "precision": runtime.info.precision,
            "parameters": parameters,
            "process_mb": round(process_mb, 1),
            "latencies_ms": [round(value, 3) for value in latencies],
            "requests_per_s_single": 1000 * len(latencies) / sum(latencies),
            "requests_per_s_batched": batched,
            **judged(task, in_order, rows),
        },
    )


def _spread(prompts: Sequence[str], count: int) -> list[str]:
    """So many prompts, evenly spread over all; some come twice where there are fewer."""
    return [prompts[index * len(prompts) // count] for index in range(count)]


if __name__ == "__main__":
    _spec_file = Path(sys.argv[1])
    _run(MeasureSpec.model_validate(read_json(_spec_file)), _spec_file.parent)

"""How fast a local teacher answers, beside the loop that tutorials show and beside its engine driven bare.

    python benchmarks/generation.py [--kind line|chat|stage] [--data PROMPTS.jsonl] [--json]

Every side writes exactly ``--tokens`` tokens to every prompt: all load one copy of the model whose end token is another
special one, which the model never writes. Three ratios are printed with their targets:

- against one prompt at a time through ``generate`` of transformers in float32, timed on some of the prompts: at least 40
  times with OpenVINO among the engines, at least 15 times without it;
- against the chosen engine driven bare, with the same model file and ready token ids: at least 0.95.

Rounds alternate between the sides and the median of the rounds counts, so that a machine that slows down slows all of them.
Each round has prompts of its own, since an engine may keep what it has read. There are three kinds: ``line``, a line of
text as the loop of the tutorials has it; ``chat``, the same as a turn in the model's chat template; ``stage``, what a stage
of classification asks: its instruction with 18 labels, and the text. The targets are for the first.
What is timed of ours is all that a stage does: rendering, sorting, tokenizing, answering, reading the text, writing the file.
The engines are measured as for a long run, so what converting costs does not count; it is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

from slmops.data.chat import ChatTemplate
from slmops.data.rows import Row
from slmops.data.support_messages import SupportMessages, generate
from slmops.data.templates import Template, choose_template
from slmops.files import read_json, read_jsonl, write_json
from slmops.models.load import load_tokenizer, parameter_count
from slmops.models.resolve import resolve
from slmops.progress import say
from slmops.runtimes.base import Generation, Sampling
from slmops.tasks.classification import Classification
from slmops.teachers.chunks import in_chunks
from slmops.teachers.converting import converted, converting_candidates
from slmops.teachers.engines import MIN_AGREEMENT, Candidate, Trial, agreement, choose
from slmops.teachers.local import LocalTeacher

TARGETS = {"one at a time": 40.0, "one at a time, without OpenVINO": 15.0, "engine driven bare": 0.95}
OPENVINO = "openvino-genai"
_LONGEST, _LINE = 300, 80  # characters of a text
_POOL = 3000


@dataclass(frozen=True)
class Side:
    """A teacher to be timed, and what drives its engine bare with token ids."""

    teacher: LocalTeacher
    bare: Callable[[Sequence[Sequence[int]]], None]

    def drive_bare(self, rows: Sequence[Row]) -> Callable[[], None]:
        """What drives the engine with these rows, token ids made beforehand."""
        ids = [self.teacher.runtime.tokenize(self.teacher.template.prompt(row)) for row in rows]
        return partial(self.bare, ids)


def main() -> None:
    """Choose engines, time them in rounds, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--data", type=Path, help="JSON lines with a field 'prompt'; else support messages")
    parser.add_argument("--kind", choices=("line", "chat", "stage"), default="line", help="what is asked")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64, help="new tokens of every answer")
    parser.add_argument("--slow", type=int, default=3, help="prompts a round that the slow loop answers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output_path", type=Path, default=Path("runs/generation"))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()

    folder = without_end(resolve(options.model).path, options.output_path / "model")
    os.environ["SLMOPS_CACHE"] = str((options.output_path / "cache").resolve())
    rows = read_rows(options.data, options.kind, options.prompts * (options.rounds + 1))
    sets = [rows[start : start + options.prompts] for start in range(0, len(rows), options.prompts)]
    tokenizer = load_tokenizer(folder)
    text_alone = Template(tokenizer, ChatTemplate("{{ messages[-1]['content'] }}", "", str(tokenizer.eos_token)))
    template = text_alone if options.kind == "line" else choose_template(tokenizer, "own")
    result = measure(folder, template, sets, options.tokens, options.slow)
    result["setting"] = {
        "model": options.model,
        "kind": options.kind,
        "prompts": options.prompts,
        "prompt_tokens": statistics.median(len(template.prompt_ids(row)) for row in rows),
        "new_tokens": options.tokens,
        "slow_prompts": options.slow * options.rounds,
        "rounds": options.rounds,
        "cores": os.cpu_count(),
        "machine": platform.processor() or platform.machine(),
    }
    print(json.dumps(result)) if options.json else print(render(result))


def measure(folder: Path, template: Template, sets: Sequence[Sequence[Row]], tokens: int, slow: int) -> dict:
    """Rates in new tokens a second, ratios and agreement; the first set of prompts is for the choice and the warm-up."""
    first, *rounds = sets
    fast, other, trials = choose_sides(folder, template, first, tokens)
    with_openvino = fast.teacher.identity["engine"] == OPENVINO
    naive = NaiveLoop(folder, fast.teacher, tokens)

    def sides(rows: Sequence[Row]) -> dict[str, Callable[[], None]]:
        found = {"ours": partial(answer_all, fast.teacher, rows, tokens), "bare": fast.drive_bare(rows)}
        return found if other is fast else found | {"ours, without OpenVINO": partial(answer_all, other.teacher, rows, tokens)}

    for run in sides(first).values():
        run()
    naive(first[:1], 4)
    times: dict[str, list[float]] = {"naive": []}
    for rows in rounds:
        by_length = sorted(rows, key=lambda row: len(row.question))
        stride = max(1, len(rows) // slow)
        asked = by_length[stride // 2 :: stride][:slow]
        times["naive"].append(timed(partial(naive, asked, tokens)) / len(asked))
        for name, run in sides(rows).items():
            times.setdefault(name, []).append(timed(run) / len(rows))
        say("  " + ", ".join(f"{name} {tokens / values[-1]:,.1f}" for name, values in times.items()) + " tokens/s")
    ours = times["ours, without OpenVINO"] if other is not fast else times["ours"]
    pairs = {
        "one at a time": (times["naive"], times["ours"]),
        "one at a time, without OpenVINO": (times["naive"], ours),
        "engine driven bare": (times["bare"], times["ours"]),
    }
    results = [result(name, *pairs[name]) for name in TARGETS if name != "one at a time" or with_openvino]
    return {
        "speedup": results[0]["speedup"],
        "results": results,
        "tokens_per_second": {name: tokens / statistics.median(values) for name, values in times.items()},
        "engines": {"ours": fast.teacher.identity, "without OpenVINO": other.teacher.identity},
        "agreement": {
            "sample": [asdict(trial) for trial in trials],
            "with the slow loop": naive.compare(fast.teacher, tokens),
        },
    }


def result(name: str, theirs: Sequence[float], ours: Sequence[float]) -> dict:
    """A ratio, round by round and its median, with its target."""
    ratios = [them / us for them, us in zip(theirs, ours, strict=True)]
    speedup = statistics.median(ratios)
    return {"against": name, "speedup": speedup, "rounds": ratios, "target": TARGETS[name], "passed": speedup >= TARGETS[name]}


def choose_sides(folder: Path, template: Template, rows: Sequence[Row], tokens: int) -> tuple[Side, Side, list[Trial]]:
    """The engine that the product's own measurement chooses, the best one but OpenVINO, and what was measured.

    It is chosen as if so many rows were left that converting costs nothing.
    """
    own, reference = (
        Candidate("torch", 0.0, lambda precision=precision: LocalTeacher.load(folder, template, precision).runtime)
        for precision in ("auto", "float32")
    )
    others = [replace(found, cost=0.0) for found in converting_candidates(folder, parameter_count(folder), "auto")]
    prompts = [template.prompt(row) for row in rows]
    runtime, trials = choose(reference, [own, *others], prompts, max_new_tokens=tokens)
    fast = side_of(folder, LocalTeacher(runtime, template), tokens)
    agreeing = [trial for trial in trials[1:] if trial.agreement >= MIN_AGREEMENT or trial.engine == "torch"]
    best = max((trial for trial in agreeing if trial.engine != OPENVINO), key=lambda trial: trial.tokens_per_second)
    if best.engine == runtime.info.name:
        return fast, fast, trials
    return fast, side_of(folder, LocalTeacher.load(folder, template, "auto", engine=best.engine), tokens), trials


def side_of(folder: Path, teacher: LocalTeacher, tokens: int) -> Side:
    """A teacher and its engine bare, with the same files and with token ids instead of text."""
    info = teacher.runtime.info
    bare = {OPENVINO: bare_openvino, "ort-genai": bare_ort, "torch": bare_torch}[info.name]
    return Side(teacher, bare(converted(info.name, folder, info.precision), tokens, info.precision))


def answer_all(teacher: LocalTeacher, rows: Sequence[Row], tokens: int) -> None:
    """What a stage does with rows: chunks of like length, each written to its file."""

    def make(chunk: Sequence[Row], file: Path) -> None:
        answers = teacher.answer(chunk, Sampling(max_new_tokens=tokens))
        write_json(file, {row.id: answer.text for row, answer in zip(chunk, answers, strict=True)})

    with tempfile.TemporaryDirectory() as work:
        chunks = in_chunks(
            rows,
            size=64,
            length=lambda row: len(teacher.template.prompt(row)),
            key=lambda row: row.id,
            folder=Path(work),
            suffix=".json",
            make=make,
            what="answers",
        )
        for _, file in chunks:
            read_json(file)


class NaiveLoop:
    """One prompt at a time through ``generate`` in float32; remembers its answers."""

    def __init__(self, folder: Path, teacher: LocalTeacher, tokens: int) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._model = AutoModelForCausalLM.from_pretrained(str(folder), dtype="float32").eval()
        self._tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self._template, self._tokens = teacher.template, tokens
        self.answers: dict[str, Generation] = {}

    def __call__(self, rows: Sequence[Row], tokens: int) -> None:
        """Answer rows; checks that as many tokens come as are asked for."""
        for row in rows:
            prompt = self._template.prompt(row)
            inputs = self._tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
            width = inputs["input_ids"].shape[1]
            output = self._model.generate(**inputs, max_new_tokens=tokens, do_sample=False)[0, width:].tolist()
            assert len(output) == tokens, "the slow loop ended early"
            text = self._tokenizer.decode(output, skip_special_tokens=True)
            self.answers[prompt] = Generation(text, tuple(output), "length", width)

    def compare(self, teacher: LocalTeacher, tokens: int) -> dict:
        """How the teacher's answers compare with those of this loop, on the prompts that it answered in full."""
        known = {prompt: answer for prompt, answer in self.answers.items() if len(answer.token_ids) == tokens}
        found = teacher.runtime.generate(list(known), Sampling(max_new_tokens=tokens))
        assert all(len(answer.token_ids) == tokens for answer in found), "an answer ended early"
        pairs = [(left.token_ids, right.token_ids) for left, right in zip(known.values(), found, strict=True)]
        return {
            "prompts": len(pairs),
            "next_tokens_equal": agreement(list(known.values()), found),
            "first_tokens_equal": statistics.mean(left[0] == right[0] for left, right in pairs),
            "answers_equal": statistics.mean(left == right for left, right in pairs),
            "mean_equal_prefix": statistics.mean(equal_prefix(left, right) for left, right in pairs),
        }


def equal_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """Tokens before the first difference."""
    differs = (place for place, pair in enumerate(zip(left, right, strict=True)) if pair[0] != pair[1])
    return next(differs, len(left))


def bare_openvino(folder: Path, tokens: int, precision: str) -> Callable[[Sequence[Sequence[int]]], None]:
    """OpenVINO GenAI's pipeline by its own interface."""
    import numpy as np
    import openvino
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.dynamic_split_fuse = False
    scheduler.max_num_seqs = 64
    scheduler.max_num_batched_tokens = 8192
    properties = {"KV_CACHE_PRECISION": "bf16"} if precision == "float16" else {}
    pipeline = openvino_genai.ContinuousBatchingPipeline(str(folder / "model.gguf"), scheduler, "CPU", properties)
    config = openvino_genai.GenerationConfig(max_new_tokens=tokens, ignore_eos=True, apply_chat_template=False)

    def run(ids: Sequence[Sequence[int]]) -> None:
        inputs = [openvino.Tensor(np.array([row], np.int64)) for row in ids]
        found = pipeline.generate(inputs, [config] * len(inputs))
        assert all(len(answer.m_generation_ids[0]) == tokens for answer in found)

    return run


def bare_ort(folder: Path, tokens: int, precision: str) -> Callable[[Sequence[Sequence[int]]], None]:
    """ONNX Runtime GenAI's generator by its own interface, 32 rows at a time."""
    import numpy as np
    import onnxruntime_genai

    model = onnxruntime_genai.Model(str(folder))
    pad = read_json(folder / "genai_config.json")["model"]["pad_token_id"]

    def run(ids: Sequence[Sequence[int]]) -> None:
        ordered = sorted(ids, key=len)
        for start in range(0, len(ordered), 32):
            batch = ordered[start : start + 32]
            width = max(map(len, batch))
            params = onnxruntime_genai.GeneratorParams(model)
            params.set_search_options(batch_size=len(batch), max_length=width + tokens, do_sample=False)
            generator = onnxruntime_genai.Generator(model, params)
            generator.append_tokens(np.array([[*row, *[pad] * (width - len(row))] for row in batch], np.int32))
            for _ in range(tokens):
                generator.generate_next_token()

    return run


def bare_torch(folder: Path, tokens: int, precision: str) -> Callable[[Sequence[Sequence[int]]], None]:
    """``generate`` of transformers on one batch."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(folder), dtype=precision).eval()

    def run(ids: Sequence[Sequence[int]]) -> None:
        width = max(map(len, ids))
        batch = torch.tensor([[0] * (width - len(row)) + list(row) for row in ids])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
        model.generate(input_ids=batch, attention_mask=mask, max_new_tokens=tokens, do_sample=False)

    return run


def without_end(model: Path, target: Path) -> Path:
    """A copy of a model folder, weights linked, whose end token is a special one that the model has no reason to write."""
    tokenizer = load_tokenizer(model)
    used = {tokenizer.eos_token, tokenizer.bos_token, tokenizer.pad_token}
    unused = [token for token in tokenizer.all_special_tokens if token not in used and token not in (tokenizer.chat_template or "")]
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if str(token) not in (tokenizer.chat_template or "")]
    end = [*unused, *(token for token in added if token not in used)][-1]
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in model.iterdir():
        if file.suffix == ".safetensors":
            (target / file.name).symlink_to(file.resolve())
        elif file.is_file():
            shutil.copyfile(file, target / file.name)
    for name, value in (("config.json", None), ("generation_config.json", None), ("tokenizer_config.json", end)):
        if (target / name).is_file():
            settings = read_json(target / name)
            settings |= {"eos_token": value} if value else {"eos_token_id": tokenizer.convert_tokens_to_ids(end)}
            write_json(target / name, settings)
    return target


def read_rows(file: Path | None, kind: str, count: int) -> list[Row]:
    """So many rows with different texts, in an order that has nothing to do with their content."""
    pairs = generate(SupportMessages(pool=_POOL))["pool"]
    texts = [text for text, _ in pairs] if file is None else [str(row["prompt"]) for row in read_jsonl(file)]
    longest = _LINE if kind == "line" else _LONGEST
    short = {text for text in texts if len(text) <= longest}
    if len(short) < count:
        sys.exit(f"only {len(short)} prompts of at most {longest} characters: give a larger file with --data")
    rows = [Row.of(text) for text in sorted(short, key=lambda text: hashlib.sha256(text.encode()).hexdigest())[:count]]
    if kind != "stage":
        return rows
    task = Classification(**Classification.complete({}, [label for _, label in pairs]))
    return [replace(row, messages=tuple(task.ask(row))) for row in rows]


def timed(run: Callable[[], None]) -> float:
    """Seconds."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def render(result: dict) -> str:
    """The result as text."""
    setting, agrees = result["setting"], result["agreement"]
    lines = [
        f"{setting['model']}, {setting['prompts']} prompts of about {setting['prompt_tokens']:g} tokens "
        f"x {setting['new_tokens']} new tokens, {setting['cores']} cores; "
        f"the slow loop on {setting['slow_prompts']} of the prompts",
        "",
        *(f"{name:<24}{rate:>10,.1f} tokens/s" for name, rate in result["tokens_per_second"].items()),
        "",
        *(
            f"{row['against']:<34}{row['speedup']:>8.2f} times   target {row['target']:g}: {'PASS' if row['passed'] else 'missed'}"
            for row in result["results"]
        ),
        "",
        *(f"{name}: {facts['engine']} {facts['precision']}" for name, facts in result["engines"].items()),
        "next tokens equal to float32's, on a sample:",
        *(f"  {row['engine']} {row['precision']}: {row['agreement']:.1%}" for row in agrees["sample"]),
        "answers beside those of the slow float32 loop: "
        + ", ".join(f"{name.replace('_', ' ')} {value:.3g}" for name, value in agrees["with the slow loop"].items()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""What each stored form of a teacher's distribution costs in bytes, and how far it is from training on all of it.

    python benchmarks/signals.py [--data ROWS.jsonl] [--json]

A student, the first layers of the teacher, is compared with the teacher at the answer tokens of rows. For each form:

- bytes an answer token takes on disk, in the product's own store;
- the mean KL over all tokens as the form says it, against the dense one, with the standard error of their difference (rows
  are the units, so both the text and the draws are in it); of the untrained student, and on the validation rows of one
  trained on the dense KL;
- the cosine of its gradient to the dense one, both of the student trained on the dense KL, of a batch and of all batches'
  sum: noise averages out, bias stays;
- the dense KL of validation rows after a training with it, all with the same batches and the same start. The standard error
  of the difference is that over validation rows; one training each says nothing of other seeds.

``top-k`` keeps the rest as one mass, as the product does. ``top-k renormalised`` drops it, as the literature's biased baseline
does. ``spaced`` draws are the product's; ``independent`` ones are those of Sparse Logit Sampling (Anshumann et al. 2025).
A run that was interrupted goes on. The aim: ``spaced`` with the product's default under 40 bytes and within 1 % of the dense KL.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slmops.data.rows import Row
from slmops.data.support_messages import SupportMessages, generate
from slmops.data.templates import Encoded, Template, choose_template
from slmops.files import atomic, digest, read_json, read_jsonl, write_json
from slmops.models.depth import cut_depth
from slmops.models.load import load_model, load_tokenizer
from slmops.models.resolve import resolve
from slmops.progress import progress
from slmops.sections import SignalsSection
from slmops.signals.distribution import Distribution, id_type
from slmops.signals.forms import Form, SampledForm, TopKForm
from slmops.signals.sampled import Sampled
from slmops.signals.store import SignalStore, row_key, write_signals
from slmops.signals.tensors import Signal, TopKTensors, join
from slmops.signals.topk import TopK
from slmops.teachers.chunks import in_chunks
from slmops.training.batches import collate, plan_batches
from slmops.training.forward import answers_of
from slmops.training.machine import autocast_type, keep_freed_memory
from slmops.training.objectives import Answers, ForwardKL

DEFAULT = SignalsSection().samples
MOST_BYTES, MOST_OFF = 40.0, 0.01
DENSE = "dense-student"
_LONGEST = 256  # tokens of a row
_WARM_UP = 0.1

Loss = Callable[[torch.Tensor, Any], torch.Tensor]
"""Student's logits ``[N, V]``, and the teacher's log-probabilities ``[N, V]`` or a signal's tensors -> ``[N]``."""


@dataclass(frozen=True)
class IndependentForm:
    """Independent draws, counted."""

    samples: int

    @property
    def fingerprint(self) -> str:
        """Names the draws."""
        return f"sampled {self.samples} independent"

    def reduce(self, logits: torch.Tensor, rows: Sequence[Encoded]) -> Sampled:
        """Draw from the logits ``[N, V]`` at all answer tokens of rows."""
        generator = torch.Generator().manual_seed(int(digest([row.input_ids for row in rows])[:8], 16))
        p = torch.softmax(logits, dim=-1)
        drawn = torch.multinomial(p, self.samples, replacement=True, generator=generator).numpy()
        found = [np.unique(row, return_counts=True) for row in drawn]
        return Sampled(
            sizes=np.array([len(ids) for ids, _ in found], np.uint8),
            entropy=torch.special.entr(p).sum(-1).to(torch.float16).numpy(),
            ids=np.concatenate([ids for ids, _ in found]).astype(id_type(p.shape[-1])),
            counts=np.concatenate([counts for _, counts in found]).astype(np.uint8),
        )


@dataclass(frozen=True)
class Case:
    """A form, the loss on it, whether a student is trained with it, and bytes of the form that the loss does not read."""

    name: str
    form: Form | None
    loss: Loss
    train: bool = False
    spared: int = 0


def dense_kl(logits: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """The KL over the whole vocabulary."""
    return (teacher.exp() * (teacher.clamp(min=-1e4) - torch.log_softmax(logits, dim=-1))).sum(-1)


def product_kl(logits: torch.Tensor, signal: Signal) -> torch.Tensor:
    """What the product's objective makes of a stored form."""
    return ForwardKL()(Answers(logits, torch.zeros(len(logits), dtype=torch.int64), signal))


def renormalised_kl(logits: torch.Tensor, signal: TopKTensors) -> torch.Tensor:
    """The KL of the top k made to add up to one."""
    teacher = torch.log_softmax(signal.logprobs, dim=-1)
    student = logits.gather(-1, signal.ids) - torch.logsumexp(logits, dim=-1, keepdim=True)
    return (teacher.exp() * (teacher - student)).sum(-1)


def cases() -> list[Case]:
    """All that is compared, the dense KL first."""
    return [
        Case("dense", None, dense_kl, train=True),
        *(Case(f"top-{k}", TopKForm(k), product_kl, k < 128) for k in (12, 32, 128)),
        *(Case(f"top-{k} renormalised", TopKForm(k), renormalised_kl, k == 12, spared=4) for k in (12, 32)),
        *(Case(f"spaced {samples}", SampledForm(samples), product_kl, samples == DEFAULT) for samples in (16, DEFAULT, 50)),
        Case("independent 50", IndependentForm(50), product_kl),
    ]


LABELS = Case("labels alone", None, partial(torch.nn.functional.cross_entropy, reduction="none"), train=True)
"""What the labels teach by themselves, for scale."""


def main() -> None:
    """Take the signals, measure the distances, train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="the teacher")
    parser.add_argument("--layers", type=int, default=6, help="first layers of the teacher that the student has")
    parser.add_argument("--data", type=Path, help="JSON lines with 'prompt' and 'response'; else messages to a shop, by topic")
    parser.add_argument("--tokens", type=int, default=10_000, help="answer tokens that the KL is compared on, and trained on")
    parser.add_argument("--validation_tokens", type=int, default=1_000)
    parser.add_argument("--gradient_batches", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=16, help="updates of each training")
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_path", type=Path, default=Path("runs/signals"))
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    keep_freed_memory()
    result = Comparison(options).run()
    print(json.dumps(result)) if options.json else print(render(result))


class Comparison:
    """One run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        folder = resolve(options.model).path
        settings = {name: str(value) for name, value in vars(options).items() if name not in ("output_path", "json")}
        self.work = options.output_path / digest(settings)[:12]
        self.student = self.work / "student"
        cut_depth(folder, self.student, range(options.layers))
        self.template = choose_template(load_tokenizer(folder), "own")
        self.teacher = load_model(folder, dtype="float32", attention="sdpa")
        self.pad = int(self.template.tokenizer.eos_token_id)
        rows = read_rows(options.data, self.template)
        self.rows = enough(rows, self.template, options.tokens)
        self.validation = enough(rows[len(self.rows) :], self.template, options.validation_tokens)
        self.encoded = {row_key(row): self.template.encode(row) for row in (*self.rows, *self.validation)}
        self.cases = cases()
        self.forms = {case.form.fingerprint: case.form for case in self.cases if case.form}

    def run(self) -> dict:
        """All figures; parts that an interrupted run finished are not made again."""
        options = self.options
        untrained = self.distance(load_model(self.student, dtype="float32"), self.rows, self.work / "untrained")
        self.stores = self.write_stores()
        students = {case.name: self.once(f"trained-{case.name}", partial(self.trained, case)) for case in self.cases if case.train}
        cosines = self.once("gradients", self.gradients)
        students[LABELS.name] = self.once("trained-labels", partial(self.trained, LABELS))
        lengths = [len(own.answer_ids) for own in self.of(self.validation)]
        after = {name: compared(own["kl"], students["dense"]["kl"], lengths) for name, own in students.items()}
        forms = [
            {
                "form": case.name,
                **self.size(case),
                "untrained": untrained[case.name],
                "dense_trained": students["dense"]["distance"][case.name],
                "gradient_cosine": cosines.get(case.name),
                "validation_kl": after.get(case.name),
            }
            for case in self.cases
        ]
        default = next(form for form in forms if form["form"] == f"spaced {DEFAULT}")
        return {
            "forms": forms,
            "passed": default["bytes_per_token"] < MOST_BYTES and abs(default["untrained"]["off"]) <= MOST_OFF,
            "labels_alone": after.get(LABELS.name),
            "setting": {
                **{name: getattr(options, name) for name in ("model", "layers", "steps", "batch_size", "gradient_batches", "seed")},
                "data": options.data.name if options.data else "messages to a shop",
                "rows": len(self.rows),
                "tokens": self.count(self.rows),
                "validation_tokens": self.count(self.validation),
            },
        }

    def once(self, name: str, make: Callable[[], dict]) -> dict:
        """What ``make`` gives, or gave before."""
        file = self.work / f"{name.replace(' ', '-')}.json"
        if not file.is_file():
            write_json(file, make())
        found: dict = read_json(file)
        return found

    def distance(self, student: Any, rows: Sequence[Row], folder: Path) -> dict[str, dict]:
        """The mean KL over all tokens as each form says it; the signals of each form stay in the files of ``folder``."""
        sums: dict[str, list[float]] = {case.name: [] for case in self.cases}
        lengths: list[int] = []
        for batch, file in self.chunks(rows, folder, partial(self.compare, student), f"distance, {folder.name}"):
            lengths += [len(own.answer_ids) for own in self.of(batch)]
            with np.load(file) as stored:
                for name, own in sums.items():
                    own += stored[name].tolist()
        found = {name: compared(own, sums["dense"], lengths) for name, own in sums.items()}
        dense = found["dense"]["kl"]
        return {name: {"kl": one["kl"], "off": one["more"] / dense, "error": one["error"] / dense} for name, one in found.items()}

    def chunks(self, rows: Sequence[Row], folder: Path, make: Callable[[Sequence[Row], Path], None], what: str) -> Iterator[Any]:
        """Batches and their files."""
        return in_chunks(
            rows,
            size=self.options.batch_size,
            length=lambda row: len(self.encoded[row_key(row)].input_ids),
            key=row_key,
            folder=folder,
            suffix=".npz",
            make=make,
            what=what,
        )

    def compare(self, student: Any, batch: Sequence[Row], file: Path) -> None:
        """Write the KL of each row as each form says it, and the forms' arrays."""
        encoded = self.of(batch)
        ends = np.cumsum([len(row.answer_ids) for row in encoded]).tolist()
        arrays: dict[str, Any] = {}
        with torch.no_grad():
            teacher, logits = self.teach(batch), answers_of(student, collate(encoded, self.pad)).logits
            reduced = {name: form.reduce(teacher, encoded) for name, form in self.forms.items()}
            for case in self.cases:
                seen = join([reduced[case.form.fingerprint]]) if case.form else teacher
                losses = case.loss(logits, seen).double()
                arrays[case.name] = np.array([float(part.sum()) for part in losses.tensor_split(ends[:-1])])
        arrays |= {f"{form}:{name}": getattr(found, name) for form, found in reduced.items() for name in found.names()}
        with atomic(file, "wb") as stream:
            np.savez(stream, **arrays)

    def write_stores(self) -> dict[str, SignalStore]:
        """Every form in a store of its own."""

        def pairs(form: str, kind: type[Distribution]) -> Iterator[tuple[str, Distribution]]:
            for batch, file in self.chunks(self.rows, self.work / "untrained", partial(self.compare, None), f"stored, {form}"):
                with np.load(file) as stored:
                    joined = kind(**{name: stored[f"{form}:{name}"] for name in kind.names()})
                start = 0
                for row, own in zip(batch, self.of(batch), strict=True):
                    yield row_key(row), joined[start : start + len(own.answer_ids)]
                    start += len(own.answer_ids)

        kinds = {name: TopK if isinstance(form, TopKForm) else Sampled for name, form in self.forms.items()}
        return {form: write_signals(self.work / form, pairs(form, kind), {"form": form}) for form, kind in kinds.items()}

    def gradients(self) -> dict[str, dict]:
        """The cosine of each form's gradient, of the weights of the student trained on the dense KL, to the dense one's."""
        student = load_model(self.work / DENSE, dtype="float32", attention="eager")
        weights = list(student.parameters())
        batches = self.batches(self.rows)[: self.options.gradient_batches]
        single: dict[str, list[float]] = {case.name: [] for case in self.cases}
        sums: dict[str, list[torch.Tensor]] = {}
        with progress("gradients", len(batches), "batches") as advance:
            for batch in batches:
                logits = answers_of(student, collate(self.of(batch), self.pad)).logits
                dense: Sequence[torch.Tensor] = ()
                for case in self.cases:
                    loss = case.loss(logits, self.seen(case, batch)).sum()
                    gradient = torch.autograd.grad(loss, weights, retain_graph=case is not self.cases[-1])
                    dense = dense or gradient
                    single[case.name].append(cosine(gradient, dense))
                    known = sums.get(case.name)
                    sums[case.name] = [a + b for a, b in zip(known, gradient, strict=True)] if known else list(gradient)
                advance(1)
        return {
            name: {"batch": statistics.mean(found), "lowest": min(found), "all": cosine(sums[name], sums["dense"])}
            for name, found in single.items()
        }

    def train(self, case: Case) -> Any:
        """Train the student with one form; embeddings stay as they are."""
        torch.manual_seed(self.options.seed)
        model = load_model(self.student, dtype="float32", attention="eager")
        model.get_input_embeddings().weight.requires_grad_(False)
        model.train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], self.options.learning_rate, fused=True)
        steps = self.options.steps
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps))
        lengths = [len(own.input_ids) for own in self.of(self.rows)]
        dtype = autocast_type("auto")
        with progress(f"train {case.name}", steps, "updates") as advance:
            for chosen in plan_batches(lengths, self.options.batch_size, self.options.seed, count=steps):
                batch = [self.rows[index] for index in chosen]
                with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                    answers = answers_of(model, collate(self.of(batch), self.pad))
                case.loss(answers.logits, answers.labels if case is LABELS else self.seen(case, batch)).mean().backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
                advance(1)
        return model.eval()

    def trained(self, case: Case) -> dict:
        """Of a student trained with one form: the dense KL of each validation row and, of the dense one, each form's KL there."""
        model, found = self.train(case), []
        with torch.no_grad():
            for row in self.validation:
                logits = answers_of(model, collate(self.of([row]), self.pad)).logits
                found.append(float(dense_kl(logits, self.teach([row])).double().sum()))
        if case.name != "dense":
            return {"kl": found}
        model.save_pretrained(self.work / DENSE)
        return {"kl": found, "distance": self.distance(model, self.validation, self.work / "trained")}

    def seen(self, case: Case, rows: Sequence[Row]) -> Any:
        """What a case knows of the teacher at rows: stored signals, or all of it."""
        if case.form is None:
            return self.teach(rows)
        store = self.stores[case.form.fingerprint]
        return join([store.get(row) for row in rows])

    def size(self, case: Case) -> dict[str, float]:
        """Bytes a token takes (dense in float16), and how many tokens of the vocabulary a position says something of."""
        if case.form is None:
            vocabulary = int(self.teacher.config.vocab_size)
            return {"bytes_per_token": 2.0 * vocabulary, "tokens_per_position": float(vocabulary)}
        store = self.stores[case.form.fingerprint]
        arrays: Any = store.arrays
        tokens = arrays.tokens / len(arrays) if arrays.tokens else float(arrays.ids.shape[1])
        return {"bytes_per_token": store.bytes_per_token - case.spared, "tokens_per_position": tokens}

    def batches(self, rows: Sequence[Row]) -> list[list[Row]]:
        """Rows of like length together, the batches in an order that has nothing to do with their content."""
        ordered = sorted(rows, key=lambda row: (len(self.encoded[row_key(row)].input_ids), row.id))
        size = self.options.batch_size
        found = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        return sorted(found, key=lambda batch: digest([row.id for row in batch]))

    def of(self, rows: Sequence[Row]) -> list[Encoded]:
        """Their tokens."""
        return [self.encoded[row_key(row)] for row in rows]

    def teach(self, rows: Sequence[Row]) -> torch.Tensor:
        """The teacher's log-probabilities at the answer tokens of rows, ``[N, V]``."""
        with torch.no_grad():
            return torch.log_softmax(answers_of(self.teacher, collate(self.of(rows), self.pad)).logits, dim=-1)

    def count(self, rows: Sequence[Row]) -> int:
        """Answer tokens."""
        return sum(len(own.answer_ids) for own in self.of(rows))


def read_rows(file: Path | None, template: Template) -> list[Row]:
    """Rows with free answers, none too long, in an order that has nothing to do with their content."""
    if file is None:
        pairs = generate(SupportMessages(pool=2000))["pool"]
        rows = [Row.of(f"Write a customer's message about this: {topic}", text) for text, topic in pairs]
    else:
        rows = [Row.of(str(line["prompt"]), str(line["response"])) for line in read_jsonl(file) if line["response"]]
    kept = {row_key(row): row for row in rows if len(template.encode(row).input_ids) <= _LONGEST}
    return [kept[key] for key in sorted(kept)]


def enough(rows: Sequence[Row], template: Template, tokens: int) -> list[Row]:
    """The first rows that have so many answer tokens together."""
    chosen, count = [], 0
    for row in rows:
        if count >= tokens:
            return chosen
        chosen.append(row)
        count += len(template.encode(row).answer_ids)
    raise SystemExit(f"only {count} answer tokens are left of {tokens}: give more rows with --data, or ask for fewer")


def compared(own: Sequence[float], dense: Sequence[float], lengths: Sequence[int]) -> dict[str, float]:
    """A mean over tokens, its difference to the dense one, and the standard error of that, with rows as units."""
    tokens = sum(lengths)
    differences = [a - b for a, b in zip(own, dense, strict=True)]
    more = sum(differences) / tokens
    squares = sum((difference - more * length) ** 2 for difference, length in zip(differences, lengths, strict=True))
    return {"kl": sum(own) / tokens, "more": more, "error": math.sqrt(squares * len(own) / max(1, len(own) - 1)) / tokens}


def cosine(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """Of two gradients."""
    product, own, others = (
        sum(float((a * b).sum(dtype=torch.float64)) for a, b in zip(left, right, strict=True))
        for left, right in ((one, other), (one, one), (other, other))
    )
    return product / math.sqrt(own * others)


def rate(step: int, steps: int) -> float:
    """Share of the peak learning rate: up in a straight line, down with a cosine."""
    warm = max(1, round(steps * _WARM_UP))
    return (step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def render(result: dict) -> str:
    """The result as text."""
    setting = result["setting"]
    lines = [
        f"{setting['model']} and its first {setting['layers']} layers; {setting['rows']} rows ({setting['data']}),",
        f"{setting['tokens']:,} answer tokens; {setting['gradient_batches']} batches of {setting['batch_size']} for gradients;",
        f"{setting['steps']} updates of training, {setting['validation_tokens']:,} validation tokens",
        "",
        f"{'form':<20}{'bytes':>9}{'tokens':>9}{'KL off, untrained':>21}{'KL off, trained':>21}{'cosine':>9}{'of all':>9}"
        f"{'validation KL':>15}{'more than dense':>19}",
    ]
    for form in result["forms"]:
        nats, cosines = form["form"] == "dense", form["gradient_cosine"]
        lines.append(
            f"{form['form']:<20}{form['bytes_per_token']:>9,.1f}{form['tokens_per_position']:>9,.1f}"
            + "".join(f"{off(form[name], nats):>21}" for name in ("untrained", "dense_trained"))
            + "".join(f"{cosines[name]:>9.4f}" if cosines else f"{'–':>9}" for name in ("batch", "all"))
            + trained(form["validation_kl"])
        )
    lines.append(f"{'labels alone':<98}" + trained(result["labels_alone"]))
    verdict = "PASS" if result["passed"] else "missed"
    lines += ["", f"spaced {DEFAULT} under {MOST_BYTES:g} bytes and within {MOST_OFF:.0%} of the dense KL: {verdict}"]
    return "\n".join(lines)


def off(found: dict | None, nats: bool) -> str:
    """A relative difference with its standard error; of the dense KL itself its value."""
    if found is None:
        return "–"
    return f"{found['kl']:.4f} nats" if nats else f"{found['off']:+.2%} ± {found['error']:.2%}"


def trained(found: dict | None) -> str:
    """What came of a training."""
    return f"{found['kl']:>15.4f}{found['more']:>+10.4f} ± {found['error']:.4f}" if found else f"{'–':>15}{'–':>19}"


if __name__ == "__main__":
    main()

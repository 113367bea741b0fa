"""A teacher whose weights are on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

from slmops.data.rows import Row
from slmops.data.templates import Encoded, Template
from slmops.errors import ResourceError, TeacherError
from slmops.models.fit import check_fits
from slmops.models.load import context_length, load_model, parameter_count
from slmops.runtimes.base import Generation, Runtime, Sampling
from slmops.runtimes.torch_runtime import TorchRuntime
from slmops.signals.distribution import Distribution
from slmops.signals.forms import Form
from slmops.signals.internals import Internals, Layers
from slmops.teachers.converting import converting_candidates, open_engine
from slmops.teachers.engines import Candidate, choose, read_record, settled, write_record
from slmops.teachers.observing import Observer
from slmops.training.machine import autocast_type
from slmops.training.projection import Projection


@dataclass(frozen=True)
class LocalTeacher:
    """Answers rows greedily and, with PyTorch, gives its distribution at answer positions."""

    runtime: Runtime
    template: Template

    @classmethod
    def load(cls, folder: Path, template: Template, precision: str, *, engine: str = "torch") -> LocalTeacher:
        """Load a model folder.

        Args:
            folder: In Hugging Face layout.
            template: Renders the rows.
            precision: As in ``training.machine.autocast_type``; see ``converting.weight_precision`` for engines beside PyTorch.
            engine: Registry name of a runtime.

        Raises:
            ModelError: The engine cannot take this model.
            MissingExtraError: It is not installed.
        """
        if engine == "torch":
            return cls(_open_torch(folder, template, precision), template)
        return cls(open_engine(engine, folder, precision), template)

    @classmethod
    def fitting(
        cls, folder: Path, template: Template, precision: str, *, engine: str, rows: Sequence[Row], max_new_tokens: int, work: Path
    ) -> LocalTeacher:
        """The same; with ``auto`` the engine that a measurement on some of the rows found, kept in ``work`` for a resumed run.

        Args:
            folder: In Hugging Face layout.
            template: Renders the rows.
            precision: As in :meth:`load`.
            engine: Registry name of a runtime, or ``auto``.
            rows: All that are to be answered.
            max_new_tokens: Of an answer; for short ones PyTorch is taken unmeasured.
            work: Folder of the work in progress.
        """
        record = read_record(work)
        engine = str(record["engine"]) if record is not None else settled(engine, max_new_tokens)
        if engine != "auto" or not rows:
            return cls.load(folder, template, precision, engine="torch" if engine == "auto" else engine)
        parameters = parameter_count(folder)
        own = Candidate("torch", 0.0, partial(_open_torch, folder, template, precision))
        reference = (
            own if autocast_type(precision) is None else Candidate("torch", 0.0, partial(_open_torch, folder, template, "float32"))
        )
        try:
            check_fits(parameters, "inference", what=folder.name)
        except ResourceError:
            reference = own
        prompts = [template.prompt(row) for row in rows]
        runtime, trials = choose(
            reference, [own, *converting_candidates(folder, parameters, precision)], prompts, max_new_tokens=max_new_tokens
        )
        write_record(work, runtime, trials)
        return cls(runtime, template)

    @property
    def identity(self) -> dict[str, str]:
        """What determines the answers besides weights, template and request."""
        return {"engine": self.runtime.info.name, "precision": self.runtime.info.precision}

    def answer(self, rows: Sequence[Row], sampling: Sampling) -> list[Generation]:
        """Answers of one batch, in order; one that hits the limit is returned as far as it got, and says so."""
        return self.runtime.generate([self.template.prompt(row) for row in rows], sampling)

    def signals(self, rows: Sequence[Encoded], form: Form) -> list[Distribution]:
        """The distribution at every answer token of one batch of rows, in order.

        Raises:
            TeacherError: The engine is not PyTorch.
        """
        return self.observe(rows, form)[0]

    def observe(
        self, rows: Sequence[Encoded], form: Form, layers: Layers | None = None
    ) -> tuple[list[Distribution], list[Internals]]:
        """The same, and in the same pass what is kept of layers; of none, where none are wanted.

        Raises:
            TeacherError: The engine is not PyTorch.
            ModelError: There is no such layer, or nothing is seen of it.
        """
        if not isinstance(self.runtime, TorchRuntime):
            raise TeacherError(f"{self.runtime.info.name} gives no distributions", fix="load the teacher with the engine torch")
        seen_by = Observer(self.runtime.model, self._projection, int(self.template.tokenizer.eos_token_id))
        return (seen_by.signals(rows, form), []) if layers is None else seen_by.signals_and_internals(rows, form, layers)

    @cached_property
    def _projection(self) -> Projection | None:
        found = Projection.of(self.runtime.model) if isinstance(self.runtime, TorchRuntime) else None
        return found and replace(found, last=None)  # threads share the layers, and each would leave out others' positions


def _open_torch(folder: Path, template: Template, precision: str) -> TorchRuntime:
    fast = autocast_type(precision) is not None
    model = load_model(folder, dtype="bfloat16" if fast else "float32", attention="sdpa")
    return TorchRuntime(model, template.tokenizer, context_length(folder))

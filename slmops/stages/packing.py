"""What may be packaged: models converted, packed, measured and held against the gates, the best first."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from slmops.evaluation.gates import UNQUANTIZED, Gate, GateResult, judge
from slmops.evaluation.systems import System
from slmops.models.bottleneck_folder import is_bottleneck
from slmops.stages.answering import RunTeacher
from slmops.stages.comparison import Candidate
from slmops.stages.context import MODEL, Context
from slmops.stages.exporting import export_model, package, reference_answers
from slmops.stages.judging import RunJudge
from slmops.stages.measuring import Turns, load_system, measure_model
from slmops.stages.rows import AS_PACKAGED, QUANTIZED, STUDENTS
from slmops.workspace import StageResult


@dataclass(frozen=True)
class Packing:
    """The candidates of a run.

    Args:
        context: Of the run.
        gates: What must hold.
        data: Test rows and task.
        answers: What students train on, for the parity of conversions.
        teacher: Who teaches.
        systems: The measured models by name; the quantized teacher is added.
        floor: The serving engine's fixed memory.
        judge: Who compares answers, where a recipe names one.
        referred: Whether the teacher's answers are the references. The quantized teacher is then a row alone: that it
            agrees with itself says nothing for it.
    """

    context: Context
    gates: list[Gate]
    data: StageResult
    answers: StageResult
    teacher: RunTeacher
    systems: dict[str, System]
    floor: StageResult
    judge: RunJudge | None
    referred: bool

    def candidates(self, students: dict[str, StageResult]) -> list[Candidate]:
        """The quantized teacher, then the students, the best first, until one passes; sorted, the best first.

        Args:
            students: By name, as they were trained.
        """
        found = []
        if self._converted_teacher is not None:
            found.append(self._quantized_teacher(self._converted_teacher))
        trained = [name for name in STUDENTS if name in students]
        speed = {name: self.systems[name].measures["latency_p50_ms"] for name in trained}
        for name in sorted(trained, key=lambda name: (-self.systems[name].quality, speed[name])):
            passed = [known.quality for known in found if known.verdict == "passed"]
            if passed and max(passed) > self.systems[name].quality:
                break
            found.append(self._candidate(name, students[name]))
        return sorted(found, key=_rank)

    def teacher_as_packaged(self, candidates: list[Candidate], chosen: Candidate | None) -> System | None:
        """The teacher converted as what is packaged is, whatever it loses by that, where its own conversion is another.

        Without it, model and precision would differ at once between the package and the teacher on its engine.
        """
        known = {candidate.scheme for candidate in candidates if candidate.name == QUANTIZED}
        model = self._converted_teacher
        if model is None or chosen is None or chosen.scheme is None or chosen.scheme in known:
            return None
        reference = reference_answers(self.context, QUANTIZED, model, self.data, self.answers)
        exported = export_model(self.context, QUANTIZED, model, reference, self.data, chosen.scheme)
        _, system = self._packed(QUANTIZED, exported)
        return replace(system, name=AS_PACKAGED)

    @property
    def _converted_teacher(self) -> StageResult | None:
        """The teacher where it can be converted: its weights are on this machine, without bottleneck adapters between them."""
        model = self.teacher.model
        return None if model is None or is_bottleneck(model.path / MODEL) else model

    def _quantized_teacher(self, model: StageResult) -> Candidate:
        quantized = self._candidate(QUANTIZED, model)
        refused = []
        if self.referred:
            refused.append(GateResult("reference", "failed", "it is compared with the teacher's answers, which are its own"))
        if self.teacher.asks_otherwise(self.data):
            refused.append(GateResult("prompt", "failed", "it was asked with the task's prompt, which a package has not"))
        if quantized.system is not None:
            self.systems[QUANTIZED] = replace(quantized.system, name=QUANTIZED)
        return replace(quantized, results=(*refused, *quantized.results))

    def _candidate(self, name: str, model: StageResult) -> Candidate:
        """The smallest scheme that keeps the model's answers and passes the gates, else the smallest that keeps the answers.

        The quantized teacher is a row of the table in any case: where no scheme keeps its answers, by the last one.
        """
        recipe = self.context.recipe
        reference = reference_answers(self.context, name, model, self.data, self.answers)
        attempts: list[dict[str, Any]] = []
        found: list[Candidate] = []
        schemes = recipe.export.teacher_schemes if name == QUANTIZED else recipe.export.schemes
        for scheme, following in zip_longest(schemes, schemes[1:]):
            exported = export_model(self.context, name, model, reference, self.data, scheme, following=following)
            attempts.append(dict(exported.facts))
            agrees = exported.facts["passed"]
            if not agrees and not (name == QUANTIZED and scheme == schemes[-1]):
                continue
            bundle, system = self._packed(name, exported)
            others = {**self.systems, UNQUANTIZED: self._source(name)}
            results = tuple(_judged(gate, system, others, recipe.evaluation.confidence) for gate in self.gates)
            if not agrees:
                results = (GateResult("export", "failed", exported.facts["why"]), *results)
            found.append(Candidate(name, scheme, bundle, system, results, attempts))
            if found[-1].verdict == "passed" or name == QUANTIZED:
                break
            attempts[-1] |= {"passed": False, "why": "; ".join(f"{r.gate}: {r.detail}" for r in results if r.verdict != "passed")}
        chosen = next((candidate for candidate in found if candidate.verdict == "passed"), found[0] if found else None)
        if chosen is not None:
            return chosen
        none = GateResult("export", "failed", "no scheme keeps the model's answers")
        return Candidate(name, None, None, None, (none,), attempts)

    def _packed(self, name: str, exported: StageResult) -> tuple[StageResult, System]:
        """A converted model as a package, and what was measured of that."""
        row = f"{name}.{exported.facts['scheme']}"
        bundle = package(self.context, row, exported, self.data)
        measured = measure_model(
            self.context,
            row,
            bundle,
            self.data,
            runtime=self.context.recipe.export.runtime,
            floor=self.floor,
            parameters=int(self._source(name).measures["parameters"]),
            turns=self._turns(name),
        )
        judged = self.judge.verdicts({row: measured}, self.data) if self.judge else {}
        return bundle, load_system(self.context, "packaged", measured, self.data, judged.get(row))

    def _source(self, name: str) -> System:
        """What a candidate is converted from."""
        return self.systems["teacher" if name == QUANTIZED else name]

    def _turns(self, name: str) -> Turns | None:
        return self.teacher.turns if name == QUANTIZED and not self.teacher.asks_plainly else None


def _rank(candidate: Candidate) -> tuple[float, float]:
    """The best first, of equals the fastest."""
    return (-candidate.quality, candidate.system.measures["latency_p50_ms"] if candidate.system else 0.0)


def _judged(gate: Gate, system: System, systems: dict[str, System], confidence: float) -> GateResult:
    """The verdict of a gate; open where the row that it goes by could not be measured in this run."""
    if gate.relative_to is not None and gate.relative_to not in systems:
        return GateResult(gate.text, "INCONCLUSIVE", f"{gate.relative_to} is not measured")
    return judge(gate, system, systems, confidence)

"""Gates that go by a model which is no good itself."""

from __future__ import annotations

import pytest

from slmops.data.rows import Row
from slmops.evaluation.outputs import Outputs
from slmops.evaluation.quality import tallies
from slmops.evaluation.systems import System
from slmops.evaluation.weak_references import blind_score, weak_references
from slmops.tasks.base import open_task

LABELS = ["refund"] * 6 + ["shipping"] * 4


def outputs(answers: list[str], task_type: str = "classification", references: list[str] = LABELS) -> Outputs:
    options = {"labels": ["refund", "shipping"]} if task_type == "classification" else {}
    rows = [Row(str(number), ({"role": "user", "content": "?"},), answer) for number, answer in enumerate(references)]
    return Outputs(open_task(task_type, options), rows, answers)


def system(name: str, made: Outputs) -> System:
    found = tallies(made)
    measures = {measure: tally.value for measure, tally in found.items()}
    return System(name, "torch", "float32", measures, tuple(made.answers), (), (), made.task.primary_measure, found)


def test_the_blind_answer_is_the_most_frequent_label() -> None:
    assert blind_score(outputs(LABELS), "accuracy") == pytest.approx(0.6)
    assert blind_score(outputs(LABELS), "macro_f1") == pytest.approx((2 * 0.6 / 1.6) / 2)
    assert blind_score(outputs(["4"], "math", ["72"]), "numeric_match") == 0


@pytest.mark.parametrize("gate", ["non_inferior(to=base, margin=0.1)", "accuracy >= 0.9 * base"])
def test_a_gate_by_a_model_that_is_no_better_than_a_blind_answer_is_named(gate: str) -> None:
    blind = {"base": system("base", outputs(["refund"] * 10))}
    [said] = weak_references([gate], blind, outputs(LABELS), 0.95)
    assert said.startswith(
        f"{gate} says little: base itself has accuracy 0.600 (0.313 to 0.832), and one and the same answer to every row 0.600."
    )
    assert weak_references([gate], {"base": system("base", outputs(LABELS))}, outputs(LABELS), 0.95) == []


def test_models_that_are_never_right_are_named_also_without_labels() -> None:
    made = outputs(["4", "5"], "math", ["72", "73"])
    assert weak_references(["non_inferior(to=base, margin=0.1)"], {"base": system("base", made)}, made, 0.95)
    right = outputs(["4", "73"], "math", ["72", "73"])
    assert not weak_references(["non_inferior(to=base, margin=0.1)"], {"base": system("base", right)}, right, 0.95)


def test_other_gates_are_not_looked_at() -> None:
    blind = {"base": system("base", outputs(["refund"] * 10))}
    gates = ["accuracy >= 0.9", "latency_p50_ms <= 0.5 * base", "valid_share >= 1 * base"]
    assert not weak_references(gates, blind, outputs(LABELS), 0.95)

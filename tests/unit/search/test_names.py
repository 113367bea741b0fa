"""Values of a recipe by dotted path or short name."""

from __future__ import annotations

import pytest

from slmops.config import Recipe
from slmops.errors import UsageError
from slmops.search.names import find_path


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("training.learning_rate", "training.learning_rate"),
        ("teacher.tune.learning_rate", "teacher.tune.learning_rate"),
        ("learning_rate", "training.learning_rate"),  # the student's before the teacher's
        ("batch_size", "training.batch_size"),
        ("lora_r", "training.lora.r"),  # the section is left out of the recipe
        ("lora.r", "training.lora.r"),
        ("lora", "training.lora"),
        ("layers", "student.layers"),
        ("k", "signals.k"),  # a value that is there goes before one that could be, training.on_policy.k
        ("max_new_tokens", "answers.max_new_tokens"),
        ("on_policy.share", "training.on_policy.share"),
        ("forward_kl.weight", "training.objectives.1.weight"),
        ("training.objectives.1.kd_temperature", "training.objectives.1.kd_temperature"),
        ("kd_temperature", "training.objectives.1.kd_temperature"),  # an option at its default
        ("objectives", "training.objectives"),
        ("tune.epochs", "teacher.tune.epochs"),
    ],
)
def test_a_value_is_found(recipe: Recipe, name: str, path: str) -> None:
    assert find_path(name, recipe) == path


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("learningrate", "no value 'learningrate' in the recipe\n.*did you mean 'learning_rate'"),
        ("training.epoch", "did you mean 'training.epochs'"),
        ("rate", "no value 'rate'"),  # a part is whole
        ("training.objectives.2.weight", "no value"),
        ("weight", r"any of training\.objectives\.0\.weight, .*\n.*write cross_entropy\.weight, forward_kl\.weight"),
        ("output_path", "output_path must be the same in every trial"),
        ("test_share", r"data\.test_share must be the same"),
        ("seed", "seed must be the same"),
    ],
)
def test_a_name_that_is_none_is_refused_with_the_nearest(recipe: Recipe, name: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        find_path(name, recipe)

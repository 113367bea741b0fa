"""Values of a recipe by dotted path or short name."""

from __future__ import annotations

from typing import Any

import pytest

from slmops.config import FinetuneRecipe, Recipe
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
        ("weight", r"any of training\.objectives\.0\.weight, .*\n.*write cross_entropy\.weight or forward_kl\.weight"),
        ("keep", r"any of student\.keep, training\.keep\n.*write student\.keep or training\.keep"),
        ("output_path", "output_path must be the same in every trial"),
        ("test_share", r"data\.test_share must be the same"),
        ("seed", "seed must be the same"),
    ],
)
def test_a_name_that_is_none_is_refused_with_the_nearest(recipe: Recipe, name: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        find_path(name, recipe)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("learning_rate", "training.learning_rate"),
        ("batch_size", "training.batch_size"),
        ("per_device_train_batch_size", "training.batch_size"),
        ("epochs", "training.epochs"),
        ("num_train_epochs", "training.epochs"),
        ("lora_r", "training.lora.r"),
        ("lora_rank", "training.lora.r"),
        ("lora_alpha", "training.lora.alpha"),
        ("lora_dropout", "training.lora.dropout"),
        ("weight_decay", "training.weight_decay"),
        ("warmup_ratio", "training.warmup_share"),
        ("warmup_share", "training.warmup_share"),
    ],
)
@pytest.mark.parametrize("training", [{}, {"lora": {}}])
def test_the_names_that_people_write_are_found_in_a_fine_tuning(name: str, path: str, training: dict[str, Any]) -> None:
    assert find_path(name, tuning(training)) == path


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("merge", "merge must be the same in every trial.*\n.*stands under training$"),
        ("model", "model must be the same"),
        ("kd_temperature", "no value 'kd_temperature'"),
        ("warmup_shar", "did you mean 'warmup_share'"),
    ],
)
def test_what_a_fine_tuning_cannot_vary_is_refused(name: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        find_path(name, tuning({}))


def tuning(training: dict[str, Any]) -> FinetuneRecipe:
    return FinetuneRecipe.model_validate(
        {
            "name": "small",
            "task_type": "classification",
            "output_path": "out",
            "model": "smollm2-135m-instruct",
            "data": {"source": {"name": "files", "train": "rows.csv"}},
            "training": training,
        }
    )

"""The study on disk: which trials there are, which one comes next, and what became of each.

Optuna keeps it in ``study.db`` (SQLite). Every process that takes part holds a file lock a trial, which ends with the process
however that ends: a trial that is under way and whose lock is free belongs to a process that was killed, and the next process
takes it up with the values it had. What is drawn depends on the recipe's seed and the trials before alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState
from optuna.trial import Trial as OptunaTrial

from slmops.errors import UsageError
from slmops.files import digest, read_json, write_json
from slmops.search.settings import Search, differences, goal_direction
from slmops.search.trials import Found, Trial
from slmops.workspace import Abandoned

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

SETTINGS = "study.json"
DATABASE = "study.db"
_WAIT_SECONDS = 120
_STARTUP_TRIALS = 6
_PRUNED_FROM = 4
"""Trials that were trained to their end before the first one is pruned."""
_FEWEST = 10
"""Complete trials from which on shares of importance are given: with eight they named next to nothing for what decided."""
_EIGHTHS = 8
_STATES = {TrialState.FAIL: "failed", TrialState.PRUNED: "pruned", TrialState.COMPLETE: "complete"}
_CURVE, _OUTCOME = "curve", "outcome"


@dataclass(frozen=True)
class Study:
    """A study that this process takes part in.

    Args:
        folder: Where it lies.
        search: What it varies.
        goals: What it makes better, by name; the first one decides which recipe is the best.
        optuna: The same for Optuna.
    """

    folder: Path
    search: Search
    goals: tuple[str, ...]
    optuna: optuna.Study

    @classmethod
    def open(cls, folder: Path, search: Search, goals: Sequence[str]) -> Study:
        """Begin a study, or go on with the one in ``folder``.

        Raises:
            UsageError: The one that is there is another; names what differs.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        folder.mkdir(parents=True, exist_ok=True)
        facts = {**search.facts, "goals": list(goals)}
        with _locked(folder):
            if (folder / SETTINGS).is_file():
                if differs := differences(read_json(folder / SETTINGS), facts):
                    raise UsageError(
                        f"this study is another: its {', '.join(differs)} changed",
                        where=str(folder),
                        fix="begin one by another name: --study NAME",
                    )
            else:
                write_json(folder / SETTINGS, facts)
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{folder / DATABASE}", engine_kwargs={"connect_args": {"timeout": _WAIT_SECONDS}}
            )
            study = optuna.create_study(
                storage=storage,
                study_name="search",
                directions=[goal_direction(goal) for goal in goals],
                pruner=_pruner(search, goals),
                load_if_exists=True,
            )
        return cls(folder, search, tuple(goals), study)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the other processes of the study out for a moment."""
        with _locked(self.folder):
            yield

    @contextmanager
    def next(self) -> Iterator[Running | None]:
        """The trial to run now, for as long as the block: one that a killed process left, else a new one; ``None``: no more."""
        with self.locked():
            taken = self._left_behind() or self._new()
        if taken is None:
            yield None
            return
        lock, trial = taken
        try:
            yield trial
        finally:
            lock.release()

    def trials(self) -> list[Trial]:
        """All trials, in their order."""
        return [self._read(trial) for trial in self.optuna.get_trials(deepcopy=False)]

    def importance(self) -> dict[str, float] | None:
        """How much of the first goal's differences each value explains (PED-ANOVA), as shares; ``None`` where too few are done."""
        complete = self.optuna.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        varied = [path for path in self.search.space if len({str(trial.params[path]) for trial in complete}) > 1]
        if len(varied) < 2 or len(complete) < max(_FEWEST, 2 * len(varied)) or len({trial.values[0] for trial in complete}) < 2:
            return None
        # It asks what brings a target down, and warns whenever there are goals to be raised.
        sign = 1 if goal_direction(self.goals[0]) == "minimize" else -1
        with warnings.catch_warnings(action="ignore"):
            shares = optuna.importance.get_param_importances(
                self.optuna, params=varied, target=lambda trial: sign * trial.values[0]
            )
        return {path: float(share) for path, share in shares.items()}

    def _left_behind(self) -> tuple[FileLock, Running] | None:
        for trial in self.optuna.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            lock = self._lock_of(trial.number)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                continue
            return lock, self._running(trial.number, trial._trial_id)
        return None

    def _new(self) -> tuple[FileLock, Running] | None:
        number = len(self.optuna.get_trials(deepcopy=False))
        if number >= self.search.trials:
            return None
        lock = self._lock_of(number)
        lock.acquire(timeout=0)
        self.optuna.sampler = self._sampler(number)
        return lock, self._drawn(self.optuna.ask())

    def _running(self, number: int, trial_id: int) -> Running:
        self.optuna.sampler = self._sampler(number)
        return self._drawn(OptunaTrial(self.optuna, trial_id))

    def _drawn(self, trial: OptunaTrial) -> Running:
        drawn = {path: _suggest(trial, path, dimension.distribution()) for path, dimension in self.search.space.items()}
        return Running(self, trial, {path: self.search.space[path].value(value) for path, value in drawn.items()})

    def _lock_of(self, number: int) -> FileLock:
        folder = self.folder / "running"
        folder.mkdir(exist_ok=True)
        return FileLock(folder / f"{number}.lock")

    def _sampler(self, number: int) -> BaseSampler:
        """What draws the values of a trial; a new one each, so that a study does not depend on when it was interrupted."""
        search = self.search
        seed = int(digest([search.recipe.seed, number])[:8], 16)
        base: BaseSampler = optuna.samplers.RandomSampler(seed=seed)
        if search.section.strategy.type == "grid":
            wanted = dict(zip(search.space, search.combinations[number], strict=True))
        else:
            wanted = search.values_of(search.recipe) if number == 0 else {}
        if search.section.strategy.type == "tpe":
            base = optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(_STARTUP_TRIALS, search.trials // 2))
        fixed = {path: search.space[path].drawn(value) for path, value in wanted.items()}
        known = {path: value for path, value in fixed.items() if value is not None}
        return optuna.samplers.PartialFixedSampler(known, base) if known else base

    def _read(self, trial: FrozenTrial) -> Trial:
        facts = trial.user_attrs.get(_OUTCOME, {})
        done = trial.state is TrialState.COMPLETE
        return Trial(
            number=trial.number,
            state=_STATES.get(trial.state, "running"),
            values={path: self.search.space[path].value(drawn) for path, drawn in trial.params.items()},
            goals=dict(zip(self.goals, trial.values, strict=True)) if done else {},
            intervals={goal: (low, high) for goal, (low, high) in facts.get("intervals", {}).items()} if done else {},
            loss=facts.get("loss"),
            curve=[(share, loss) for share, loss in trial.user_attrs.get(_CURVE, [])],
            seconds=facts.get("seconds"),
            why=facts.get("why", ""),
            made=facts.get("made", []),
        )


@dataclass(frozen=True)
class Running:
    """A trial that this process runs.

    Args:
        study: Whose it is.
        trial: The same for Optuna.
        values: By dotted path.
    """

    study: Study
    trial: OptunaTrial
    values: Mapping[str, Any]

    @property
    def number(self) -> int:
        """From 0."""
        return self.trial.number

    @property
    def same(self) -> Trial | None:
        """A trial that is done and had the same values."""
        done = (other for other in self.study.trials() if other.state == "complete")
        return next((other for other in done if dict(other.values) == dict(self.values)), None)

    def watch(self, share: float, loss: float) -> None:
        """Note the validation loss of a training and end it where the others were better at this point.

        Raises:
            Abandoned: The trial is pruned.
        """
        curve = [(*point,) for point in self.trial.user_attrs.get(_CURVE, []) if point[0] < share]
        self.trial.set_user_attr(_CURVE, [*curve, (share, loss)])
        point = int(share * _EIGHTHS + 1e-9)
        if len(self.study.goals) > 1 or not 0 < point < _EIGHTHS:
            return
        known = self.study.optuna.get_trials(deepcopy=False)[self.number].intermediate_values
        if point not in known:
            # Optuna compares in the direction of the goal; a loss is better where it is lower.
            self.trial.report(loss if goal_direction(self.study.goals[0]) == "minimize" else -loss, point)
        if self.trial.should_prune():
            raise Abandoned(f"validation loss {loss:.3f} after {share:.0%} of the training")

    def finish(self, found: Found, seconds: float) -> None:
        """Write down what the trial is worth."""
        outcome = {"seconds": seconds, "loss": found.loss, "made": list(found.made), "intervals": dict(found.intervals)}
        self.trial.set_user_attr(_OUTCOME, outcome)
        with self.study.locked():
            self.study.optuna.tell(self.trial, [found.goals[goal] for goal in self.study.goals])

    def give_up(self, state: str, why: str, seconds: float) -> None:
        """Write down that it was pruned, or failed, and why."""
        self.trial.set_user_attr(_OUTCOME, {"seconds": seconds, "why": why})
        with self.study.locked():
            self.study.optuna.tell(self.trial, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)


def _suggest(trial: OptunaTrial, name: str, distribution: optuna.distributions.BaseDistribution) -> Any:
    if isinstance(distribution, optuna.distributions.FloatDistribution):
        return trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
    if isinstance(distribution, optuna.distributions.IntDistribution):
        return trial.suggest_int(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    assert isinstance(distribution, optuna.distributions.CategoricalDistribution)
    return trial.suggest_categorical(name, distribution.choices)


def _pruner(search: Search, goals: Sequence[str]) -> BasePruner:
    """What ends bad trials; points are eighths of a training, and none is ended in its first quarter."""
    if search.section.prune == "none" or len(goals) > 1:
        return optuna.pruners.NopPruner()
    if search.section.prune == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=2)
    return optuna.pruners.MedianPruner(n_startup_trials=_PRUNED_FROM, n_warmup_steps=2)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with FileLock(folder / ".lock", timeout=_WAIT_SECONDS):
        yield

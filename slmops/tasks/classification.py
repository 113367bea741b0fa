"""Classification: the answer is one label of a closed list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slmops.errors import DataError
from slmops.tasks.base import AnswerError
from slmops.tasks.labelled import Labelled
from slmops.tasks.labels import form, labels_of, short


class Classification(Labelled):
    """Route, tag or judge a text with one of a list of labels.

    In a ``system_prompt``, ``{labels}`` stands for the labels, one a line.
    """

    @classmethod
    def complete(cls, options: Mapping[str, Any], answers: Sequence[str]) -> dict[str, Any]:
        """Without ``labels``, the valid answers are those that occur in the data.

        Raises:
            DataError: They are one and the same.
        """
        if options.get("labels"):
            return dict(options)
        found = labels_of(answers)
        if len(found) == 1:
            raise DataError(
                f"all {len(answers):,} answers are {found[0]!r}, which leaves nothing to choose",
                fix="take rows with other answers too (of a sorted file the first rows are alike), or name task.labels=[a,b]",
            )
        return {**options, "labels": found}

    def own_prompt(self) -> str:
        """What the teacher is told where neither recipe nor row says it."""
        return "Answer with one of these labels alone:\n{labels}"

    def slots(self) -> Mapping[str, str]:
        """``{labels}``: the labels, one a line."""
        return {"labels": "\n".join(self.labels)}

    def parse(self, text: str) -> str:
        """The label that a text names; raises :class:`AnswerError` where it names none."""
        label = self.known.get(form(text))
        if label is None:
            raise AnswerError(f"not a label: {short(text)!r}")
        return label

"""Rows for a model with a classification head: the prompt, and the number of the label instead of its tokens."""

from __future__ import annotations

from dataclasses import dataclass

from slmops.data.rows import Row
from slmops.data.templates import IGNORED, Encoded, Template
from slmops.errors import DataError, nearest


@dataclass(frozen=True)
class LabelTemplate(Template):
    """A template whose answers are numbers of labels.

    Args:
        labels: What the head chooses from, in the order of its outputs.
    """

    labels: tuple[str, ...] = ()

    def encode(self, row: Row) -> Encoded:
        """Token ids of the prompt, and behind them the label's number as the one that is predicted at the prompt's last token.

        A decoder's states do not depend on what comes later, so which token that number would be does not matter.

        Raises:
            DataError: The row's answer is none of the labels.
        """
        if row.answer not in self.labels:
            raise DataError(f"{row.answer!r} is none of the labels", where=row.origin, fix=nearest(str(row.answer), self.labels))
        prompt, number = self.prompt_ids(row), self.labels.index(row.answer)
        return Encoded((*prompt, number), (*[IGNORED] * len(prompt), number))

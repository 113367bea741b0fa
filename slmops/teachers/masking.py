"""Questions without their personal data, and answers with it put back: what is in between never sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec

from slmops.data.personal_data import Finder
from slmops.data.privacy import Masked, mask, open_finders
from slmops.files import canonical
from slmops.teachers.base import Outcome, Request

INVENTED = "invented placeholder"
_LIBRARY = "phonenumbers"


def finder_names(given: Sequence[str] | None) -> tuple[str, ...]:
    """The finders that a recipe names; where it names none, the patterns and the library, if that is installed."""
    if given is not None:
        return tuple(given)
    return ("patterns", "phonenumbers") if find_spec(_LIBRARY) else ("patterns",)


@dataclass(frozen=True)
class MaskedRequests:
    """Requests that may leave the machine, and what their placeholders stand for, which may not.

    Args:
        requests: As they are sent; the rows, which hold the originals, are taken off.
        masked: One a request.
    """

    requests: list[Request]
    masked: list[Masked]

    @classmethod
    def of(cls, requests: Sequence[Request], finders: Sequence[str]) -> MaskedRequests:
        """Mask requests by the finders of these names; none leave them as they are.

        Raises:
            UsageError: No finder has that name.
            MissingExtraError: What it needs is not installed.
        """
        opened: list[Finder] = open_finders(finders)
        known: dict[str, Masked] = {}  # draws of one question have the same messages
        masked = []
        for request in requests:
            key = canonical([dict(turn) for turn in request.messages])
            if key not in known:
                known[key] = mask(request.messages, opened) if opened else Masked(tuple(request.messages), {})
            masked.append(known[key])
        sent = [replace(request, messages=one.messages, row=None) for request, one in zip(requests, masked, strict=True)]
        return cls(sent, masked)

    @property
    def counts(self) -> dict[str, int]:
        """How many pieces were masked, by kind; a question counts a piece once, however often it is asked."""
        different = {id(one): one for one in self.masked}
        return dict(sum((Counter(one.counts) for one in different.values()), Counter()))

    def restore(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Outcomes with the originals in place; an answer with a placeholder that stands for nothing is none."""
        return [_restored(outcome, one) for outcome, one in zip(outcomes, self.masked, strict=True)]


def _restored(outcome: Outcome, masked: Masked) -> Outcome:
    reply = outcome.reply
    if reply is None or not masked.originals:
        return outcome
    invented = masked.invented(reply.text)
    if invented:
        return replace(outcome, reply=None, reason=f"{INVENTED}: {', '.join(invented)}")
    text = masked.unmask(reply.text)
    # The log-probabilities are about the tokens of the placeholders.
    return outcome if text == reply.text else replace(outcome, reply=replace(reply, text=text, logprobs=None))

"""Translation from one language into another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from slmops.tasks.assertions import Assertion, check
from slmops.tasks.prompts import Prompted
from slmops.tasks.scores import same_text, translation_scores


class Translation(Prompted):
    """A text in another language.

    Args:
        source_language: Name of the language of the questions, as the teacher should be told; left out: it finds out.
        target_language: Name of the language of the answers.
        bleu_tokenizer: How BLEU splits words (sacrebleu's names); ``zh`` for Chinese, ``char`` where words have no spaces.
        assertions: What must hold for a translation.
    """

    any_language: ClassVar[bool] = True

    source_language: str | None = Field(None, description="Name of the language of the questions")
    target_language: str = Field("English", min_length=2, description="Name of the language of the answers")
    bleu_tokenizer: Literal["13a", "intl", "zh", "char", "none"] = Field("13a", description="How BLEU splits words")
    assertions: tuple[Assertion, ...] = Field((), description="What must hold for a translation")

    @property
    def primary_measure(self) -> str:
        """The measure that decides."""
        return "chrf"

    def own_prompt(self) -> str:
        """What the teacher is told where neither recipe nor row says it."""
        origin = f" from {self.source_language}" if self.source_language else ""
        return f"Translate the text{origin} into {self.target_language}. Answer with the translation alone."

    def slots(self) -> Mapping[str, str]:
        """``{source_language}`` and ``{target_language}``."""
        return {"source_language": self.source_language or "", "target_language": self.target_language}

    def parse(self, text: str) -> str:
        """The translation; raises :class:`AnswerError` where it is empty or fails an assertion."""
        return check(self.assertions, super().parse(text))

    def correct(self, answer: str, reference: str) -> bool:
        """Whether a translation is the reference but for case, punctuation and articles."""
        read = self.read(answer)
        return read is not None and same_text(read, self.parse(reference))

    def score(self, answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        """BLEU and chrF of the corpus, and the share of valid answers; an invalid one counts as an empty one.

        Raises:
            MissingExtraError: sacrebleu is not installed.
        """
        read, expected = [self.read(answer) or "" for answer in answers], [self.parse(reference) for reference in references]
        scores = translation_scores(read, expected, tokenizer=self.bleu_tokenizer)
        return {**scores, "valid_share": self.valid_share(answers)}

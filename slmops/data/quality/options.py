"""What the quality pass asks of rows."""

from __future__ import annotations

from pydantic import Field

from slmops.config import Section


class QualityOptions(Section):
    """Bounds of the quality pass; what is outside is set aside with its reason."""

    longest: int = Field(20_000, ge=1, description="Longest question, and longest answer, in characters")
    language: str = Field(
        "prompt", description="Of free answers: prompt (the question's), any, or the code of a language, such as en"
    )
    near_duplicates: float = Field(0.85, gt=0, le=1, description="Least Jaccard index of the shingles of near duplicates")
    leak_overlap: float = Field(
        0.8, gt=0, le=1, description="Least share of a held-out text's 8-grams in a training text that makes it a leak"
    )
    min_agreement: float = Field(0, ge=0, le=1, description="Least share of several answers to one question that must agree")
    max_label_ratio: float | None = Field(
        None, ge=1, description="Most training rows of a label, in times the median label's; absent: labels are not balanced"
    )

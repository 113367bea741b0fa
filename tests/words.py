"""Words that are nothing like each other, for rows that are no duplicates."""

from __future__ import annotations

WORDS = (
    *("apple", "bridge", "candle", "dragon", "engine", "forest", "garden", "hammer"),
    *("island", "jacket", "kettle", "ladder", "marble", "needle", "orange", "pocket"),
)

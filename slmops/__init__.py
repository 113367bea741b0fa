"""slmops: from a teacher to a small, measured, served language model."""

__version__ = "0.1.0"

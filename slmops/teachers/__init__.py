"""Models that answer rows and show their distribution."""

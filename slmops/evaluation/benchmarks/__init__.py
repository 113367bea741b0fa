"""Benchmarks people know: the tasks of EleutherAI's lm-evaluation-harness, by that harness, on local data."""

"""Public helpers for tests: a tiny model and tokenizer made on the spot, contract suites, fakes."""

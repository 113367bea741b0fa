"""The catalogue, the one resolver, loading and shrinking of models."""

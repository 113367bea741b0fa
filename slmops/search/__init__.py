"""Search over the values of a recipe."""

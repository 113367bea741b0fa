"""Data quality: what is wrong with rows, found in one pass that drops nothing silently."""

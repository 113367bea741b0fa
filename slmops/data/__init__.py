"""Sources, checks, templates with the only loss mask, splits and batches."""

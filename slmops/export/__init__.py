"""From trained weights to files that other engines run."""

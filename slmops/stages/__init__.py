"""The stages of a run: each reads artifacts and makes one."""

"""``python -m slmops``."""

from slmops.cli import main

main()

"""``python -m orthocond_cli``: the entry point of processes that orthocond itself starts."""

from .main import main

main()

"""``python -m orthocond_cli``: what a process that was started for others runs."""

from .main import main

main()

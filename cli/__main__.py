"""``python -m orthocond_cli``: what a process that was started for others runs."""

from orthocond_cli.main import main

main()

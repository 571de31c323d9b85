"""The networks of ``networks`` in place of orthocond's own, in every process of a command.

Python imports this module at its start wherever this folder is on PYTHONPATH, so the real commands
train these networks, whichever launcher starts their processes. Each process of a group also
leaves a list of the files that it wrote, in the folder of $WRITTEN.
"""

import atexit
import os
import sys
from pathlib import Path

from networks import plain_model

import orthocond.training.treated_network


def keep_list_of_written(folder: Path) -> None:
    written: list[str] = []

    def note(event: str, args: tuple) -> None:
        if event == "open":
            flags = args[2] if isinstance(args[2], int) else 0
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR))
        else:
            writes = event in ("os.mkdir", "os.rename", "os.remove")
        if writes:
            written.append(str(args[0]))

    sys.addaudithook(note)
    atexit.register(lambda: (folder / os.environ["RANK"]).write_text("\n".join(written)))


orthocond.training.treated_network.build_model = plain_model
if "WRITTEN" in os.environ and "RANK" in os.environ:
    keep_list_of_written(Path(os.environ["WRITTEN"]))

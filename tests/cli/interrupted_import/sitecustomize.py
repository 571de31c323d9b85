"""A Ctrl-C at the moment when the import of the module $INTERRUPTED_IMPORT begins.

Python imports this module at its start wherever this folder is on PYTHONPATH.
"""

import os
import signal
import sys


class Interrupting:
    """A finder that finds nothing."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        if name == os.environ["INTERRUPTED_IMPORT"]:
            signal.raise_signal(signal.SIGINT)


sys.meta_path.insert(0, Interrupting)  # type: ignore[arg-type]

"""The networks of ``networks`` in place of orthocond's own, in every process of a command.

Python imports this module at its start wherever this folder is on PYTHONPATH, so the real commands
train these networks, whichever launcher starts their processes. Each process of a group also
leaves a list of the files that it wrote, in the folder of $WRITTEN.
"""

import atexit
import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

REPLACED = "orthocond.training.treated_network"


class WithPlainNetworks:
    """A finder that replaces ``build_model`` where a process imports it, for a launcher does not.

    The import of orthocond's networks takes seconds.
    """

    @staticmethod
    def find_spec(name: str, path: list[str] | None, target: object = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == REPLACED else None
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_replace(module: ModuleType) -> None:
            from networks import plain_model

            execute(module)
            module.build_model = plain_model  # type: ignore[attr-defined]

        spec.loader.exec_module = execute_and_replace  # type: ignore[method-assign]
        return spec


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


sys.meta_path.insert(0, WithPlainNetworks)  # type: ignore[arg-type]
if "WRITTEN" in os.environ and "RANK" in os.environ:
    keep_list_of_written(Path(os.environ["WRITTEN"]))

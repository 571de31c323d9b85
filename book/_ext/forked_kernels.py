"""Sphinx extension: the kernel of a page is a fork of the build, which has imported torch already.

A new process would spend more time on its imports, and on reading the runs, than most pages spend
on their cells. ``runs_of_the_book`` has imported ``kit`` and read the runs before pages are read.
Each page still has a process of its own.
"""

import asyncio
import multiprocessing
import os
import sys
from importlib.metadata import EntryPoint
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner
from sphinx.application import Sphinx

NAME = "forked"
LAUNCHER = "ipykernel_launcher"


def run_kernel(arguments: list[str], cwd: str, environment: dict[str, str]) -> None:
    """Run a kernel in this process, which was forked for it."""
    os.setsid()  # a signal to the kernel reaches its processes as well, but not the build
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment, JPY_PARENT_PID=str(os.getppid()))  # it ends with the build
    sys.argv = [LAUNCHER, *arguments, "--log-level=ERROR"]  # it warns of its local sockets
    asyncio.set_event_loop(asyncio.new_event_loop())  # the other one is the build's
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance()


class ForkedKernel(LocalProvisioner):
    """Kernel in a fork of the process that reads the page."""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel."""
        arguments = cmd[cmd.index(LAUNCHER) + 1 :]
        self.process = multiprocessing.get_context("fork").Process(
            target=run_kernel, args=(arguments, kwargs.get("cwd", "."), kwargs["env"])
        )
        self.process.start()
        self.pid = self.pgid = self.process.pid
        return self.connection_info

    async def poll(self) -> int | None:
        """Return the exit status of the kernel; None while it runs."""
        return self.process.exitcode if self.process else 0

    async def wait(self) -> int | None:
        """Wait until the kernel has ended, and return its exit status."""
        while (status := await self.poll()) is None:
            await asyncio.sleep(0.02)
        self.process = None
        return status


def setup(app: Sphinx) -> dict[str, bool]:
    if sys.platform == "linux":  # macOS can end a fork that uses its frameworks
        factory = KernelProvisionerFactory.instance()
        entry = EntryPoint(NAME, f"{__name__}:ForkedKernel", factory.GROUP_NAME)
        factory.provisioners[NAME] = entry
        factory.default_provisioner_name = NAME
    return {"parallel_read_safe": True, "parallel_write_safe": True}

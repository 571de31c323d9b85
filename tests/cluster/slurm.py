"""A Slurm of the test's own: munge, a controller and one node, on loopback ports."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel")
PATH = f"{os.environ['PATH']}:/usr/sbin"
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES State=UP
"""
# A requeued task waits for cred_expire seconds, so that no node runs it twice.


def missing() -> list[str]:
    """The programs of Slurm that this machine has not."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start it; gives the environment in which its commands are called."""
    folder.chmod(0o755)  # munged refuses a socket that others can't reach
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            folder=folder,
            host=socket.gethostname().partition(".")[0],
            user=getpass.getuser(),
            controller_port=_free_port(),
            node_port=_free_port(),
        )
    )
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed", "log")]
    with ExitStack() as stack:
        for command in (
            ["munged", "--foreground", "--force", f"--socket={folder}/munge.sock", *munge],
            ["slurmctld", "-D"],
            ["slurmd", "-D"],
        ):
            stack.enter_context(_running(command, environment, folder / f"{command[0]}.out"))
        _wait_until_idle(environment, folder)
        yield environment


@contextmanager
def _running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        time.sleep(0.5)
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def _wait_until_idle(environment: dict[str, str], folder: Path) -> None:
    for _ in range(60):
        asked = subprocess.run(
            ["sinfo", "--noheader", "--format=%T"], env=environment, capture_output=True, text=True
        )
        if asked.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text()[-1000:] for path in folder.glob("*.out"))
    raise AssertionError(f"Slurm does not start: {asked.stdout}{asked.stderr}\n{logs}")

"""A Slurm of the test's own: munge, a controller and two nodes of this machine, on loopback ports.

Nothing here takes a time for granted: what has to be there is waited for, with limits that only a
machine that hangs would reach.
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel")
PATH = f"{os.environ['PATH']}:/usr/sbin"
CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=20
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SlurmctldTimeout=3600
SlurmdTimeout=3600
MessageTimeout=100
BatchStartTimeout=600
NodeName=node0 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 State=UNKNOWN
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 State=UNKNOWN
PartitionName=test Nodes=node[0-1] Default=YES State=UP
"""
# A requeued task waits for cred_expire seconds, so that no node runs it twice.
LIMIT = 300  # seconds that a daemon may take to start


def missing() -> list[str]:
    """The programs of Slurm that this machine has not."""
    return [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on."""
    with ExitStack() as stack:
        probes = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start it; gives the environment in which its commands are called."""
    folder.chmod(0o755)  # munged refuses a socket that others can't reach
    (folder / "state").mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            folder=folder,
            host=socket.gethostname().partition(".")[0],
            user=getpass.getuser(),
            ports=free_ports(3),
        )
    )
    environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "seed", "log")]
    socket_file = folder / "munge.sock"
    with ExitStack() as stack:

        def start(log: str, *command: str) -> None:
            stack.enter_context(_running([*command], environment, folder / f"{log}.out"))

        start("munged", "munged", "--foreground", "--force", f"--socket={socket_file}", *munge)
        _wait_for(socket_file.exists, folder)
        start("slurmctld", "slurmctld", "-D")
        for node in ("node0", "node1"):
            start(node, "slurmd", "-D", "-N", node)
        _wait_for(
            lambda: _said(environment, "sinfo", "-h", "-N", "-o", "%T") == "idle\nidle", folder
        )
        try:
            yield environment
        finally:  # no job outlives its node
            _said(environment, "scancel", "--full", "--signal=KILL", f"--user={getpass.getuser()}")
            _said(environment, "scancel", f"--user={getpass.getuser()}")
            _wait_for(lambda: not _said(environment, "squeue", "-h"), folder)


def _said(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip()


@contextmanager
def _running(command: list[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(condition: Callable[[], bool], folder: Path) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > deadline:
            logs = "\n".join(f"{p.name}: {p.read_text()[-1000:]}" for p in folder.glob("*.out"))
            raise AssertionError(f"Slurm does not answer\n{logs}")
        time.sleep(0.1)

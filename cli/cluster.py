"""Hand the runs of a grid to Slurm: one array task a run, each the command line of that run.

submitit would do the same through pickled functions, which every task loads from the study's
folder; nothing here is ever unpickled, so the script is written directly.

Note [Preemption]
    Slurm signals SIGTERM to the step before the time limit (--signal) and before it preempts. The
    run then saves its state and ends with 143, and the script puts the task back into the queue.
    A task that its owner cancels has another state by then, and stays cancelled.

Note [Several nodes a run]
    Each node gets one launcher (cli/launch.py, what torchrun calls), and the launchers meet on the
    first node, on which the script runs. The port comes from the job's number, which no other job
    on that node has.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from orthocond.data import load_data
from orthocond.errors import UserError
from orthocond.files import make_folder, naming
from orthocond.grid import Planned, plan
from orthocond.settings import assignments

if TYPE_CHECKING:
    from orthocond.config import Config, Grid

FOLDER = "slurm"  # in the study: logs, and <array job>.runs with the name of each task's run
SCRIPT = """\
#!/bin/bash
{directives}
case $SLURM_ARRAY_TASK_ID in
{tasks}
esac
trap : TERM  # the run is told as well: wait here until it has saved its state
srun ${{SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK}} \\
    {train} "${{run[@]}}"{meet}
code=$?
task=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID  # SLURM_JOB_ID can be the whole array's
if [ $code = 143 ] && [ "$(squeue -h -j "$task" -o %T)" = RUNNING ]; then
    scontrol requeue "$task"
fi
exit $code
"""
MEET = ' \\\n    --rendezvous="$(hostname):$((10000 + SLURM_JOB_ID % 20000))"'
PLACES = ("nodes", "ntasks", "ntasks-per-node")  # said by --nodes: a launcher each


class ClusterError(UserError):
    """Slurm is not there, or refuses."""

    exit_code = 1


def directives(study: Path, tasks: int, resources: Iterable[str] = (), nodes: int = 1) -> list[str]:
    """The ``#SBATCH`` lines, those of the user last, so that they hold.

    Args:
        study: where the logs go.
        tasks: runs of the array.
        resources: options of sbatch as ``key=value`` or ``key``, such as ``time=4:00:00``.
        nodes: of each run.

    Raises:
        UserError: a resource is neither, or says how many nodes or tasks there are.

    Example:
        >>> directives(Path("/runs/a"), 2, ["mem=8G"])[-1]
        '#SBATCH --mem=8G'
    """
    options = [
        f"job-name=orthocond-{study.name}",
        f"array=0-{tasks - 1}",
        f"nodes={nodes}",
        "ntasks-per-node=1",
        "requeue",
        "open-mode=append",
        f"output={study / FOLDER}/%A_%a.log",
        "signal=TERM@120",
    ]
    for resource in resources:
        if not re.fullmatch(r"[a-z][a-z-]*(=[^\s'\"\\]+)?", resource):
            raise UserError(
                f"sbatch option {resource[:60]!r}: expected key=value without spaces, "
                "such as time=4:00:00"
            )
        if resource.partition("=")[0] in PLACES:
            raise UserError(
                f"sbatch option {resource!r}: use --nodes for the nodes of a run and "
                "--num-processes for the processes on each"
            )
        options.append(resource)
    return [f"#SBATCH --{option}" for option in options]


def run_arguments(config: Config) -> list[str]:
    """The part of the command line that names one run: its settings, whatever they came from."""
    flags = [f"--method={config.method}", f"--seeds={config.seed}"]
    settings = assignments(config.model_dump(mode="json"), ("method", "seed"))
    return flags + [f"--set={assignment}" for assignment in settings]


def script(
    planned: Sequence[Planned],
    study: Path,
    resources: Iterable[str],
    common: Sequence[str],
    nodes: int,
) -> str:
    """The batch script of an array whose tasks are these runs.

    Args:
        planned: the runs.
        study: their folder, absolute.
        resources: as in ``directives``.
        common: arguments of ``orthocond train`` that all runs share.
        nodes: of each run.
    """
    common = [*common, f"--nodes={nodes}"] if nodes > 1 else common
    train = [sys.executable, "-m", "orthocond_cli", "train", f"--out={study}", *common]
    runs = (shlex.join(run_arguments(p.config)) for p in planned)
    return SCRIPT.format(
        directives="\n".join(directives(study, len(planned), resources, nodes)),
        tasks="\n".join(f"{task}) run=({run}) ;;" for task, run in enumerate(runs)),
        train=shlex.join(train),
        meet=MEET if nodes > 1 else "",
    )


def queued(study: Path) -> set[str]:
    """Names of the runs of a study that wait or run in the queue.

    Raises:
        ClusterError: Slurm does not answer.
    """
    names: set[str] = set()
    for line in _slurm("squeue", "--me", "--noheader", "--array", "--format=%F %K").splitlines():
        job, _, task = line.partition(" ")
        record = study / FOLDER / f"{job}.runs"
        if record.is_file() and task.strip().isdigit():
            names.add(record.read_text().splitlines()[int(task)])
    return names


def submit(text: str, planned: Sequence[Planned], study: Path) -> str:
    """Hand a script to Slurm and note which task trains which run: the array's job number.

    Raises:
        ClusterError: Slurm is not there, or refuses.
        UserError: the study can't be written.
    """
    folder = study / FOLDER
    make_folder(folder)
    job = _slurm("sbatch", "--parsable", text=text).strip().partition(";")[0]
    record = folder / f"{job}.runs"
    with naming("write", record):
        record.write_text("".join(f"{p.folder.name}\n" for p in planned))
    return job


def _slurm(command: str, *arguments: str, text: str = "") -> str:
    if shutil.which(command) is None:
        raise ClusterError(f"there is no Slurm on this machine: {command} is missing")
    done = subprocess.run([command, *arguments], input=text, capture_output=True, text=True)
    if done.returncode:
        raise ClusterError(f"{command} refuses: {done.stderr.strip() or done.returncode}")
    return done.stdout


def hand_over(
    grid: Grid,
    study: Path,
    resources: Sequence[str],
    common: Sequence[str],
    nodes: int,
    dry_run: bool,
) -> None:
    """Submit what is neither complete nor queued; with ``dry_run``, print the script instead.

    Args:
        grid: what to train.
        study: the folder of the runs, which all machines see.
        resources: as in ``directives``.
        common: arguments of ``orthocond train`` that all runs share.
        nodes: of each run.
        dry_run: submit nothing, and count queued runs as missing.

    Raises:
        UserError: the data can't be had, a run has another configuration, a resource is none.
        ClusterError: Slurm is not there, or refuses.
    """
    study = study.absolute()
    runs = plan(grid, study, load_data(**grid.config.data.model_dump()))
    waiting = set() if dry_run else queued(study)
    missing = [p for p in runs if p.action != "skip" and p.folder.name not in waiting]
    if not missing:
        typer.echo("nothing to submit: every run is complete or queued")
        return
    text = script(missing, study, resources, common, nodes)
    if dry_run:
        typer.echo(text, nl=False)
        return
    job = submit(text, missing, study)
    typer.echo(f"submitted {len(missing)} of {len(runs)} runs as array job {job}")

"""Submit the runs of a grid to Slurm, as an array with one task per run.

Each task executes the command line of its run. The batch script is written here, without submitit:
submitit passes pickled functions to the tasks, and orthocond never unpickles a file.

Note [Preemption]
    Slurm sends SIGTERM before the time limit (--signal) and before it preempts a task. The run then
    saves its state and exits with code 143, and the script requeues the task. If the user cancelled
    the task, its state is no longer RUNNING, so it is not requeued.

Note [Several nodes a run]
    Each node gets one launcher (cli/launch.py, which calls the launcher of torchrun). The launchers
    meet on the first node, where the script runs. The port is derived from the job number, which is
    unique on that node.
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

from orthocond.artifacts.atomic_files import make_folder, write_bytes
from orthocond.config.assignments import assignments
from orthocond.data import load_data
from orthocond.errors import UserError
from orthocond.training.session import Planned, plan

if TYPE_CHECKING:
    from orthocond.config.schema import Config, Grid

FOLDER = "slurm"  # in the study: logs, and <array job>.runs with one run name per task
SCRIPT = """\
#!/bin/bash
{directives}
case $SLURM_ARRAY_TASK_ID in
{tasks}
esac
trap : TERM  # the run gets the signal too: wait until it has saved its state
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
PLACES = ("nodes", "ntasks", "ntasks-per-node")  # set by --nodes: one launcher per node


class ClusterError(UserError):
    """Slurm is not installed, or refuses a request."""

    exit_code = 1


def directives(study: Path, tasks: int, resources: Iterable[str] = (), nodes: int = 1) -> list[str]:
    """Return the ``#SBATCH`` lines. Those of the user come last, so that they take effect.

    Args:
        study: folder of the study, which gets the logs.
        tasks: number of tasks in the array.
        resources: options of sbatch as ``key=value`` or ``key``, such as ``time=4:00:00``.
        nodes: number of nodes for each run.

    Raises:
        UserError: a resource has another form, or sets the number of nodes or tasks; or the path
            of the study has a line break, which would end its directive.

    Example:
        >>> directives(Path("/runs/a"), 2, ["mem=8G"])[-1]
        '#SBATCH --mem=8G'
    """
    if "\n" in str(study):
        raise UserError(f"{str(study)!r} has a line break, which a batch script can't hold")
    options = [
        f"job-name={shlex.quote(f'orthocond-{study.name}')}",
        f"array=0-{tasks - 1}",
        f"nodes={nodes}",
        "ntasks-per-node=1",
        "requeue",
        "open-mode=append",
        f"output={shlex.quote(f'{_literal(study / FOLDER)}/%A_%a.log')}",
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


def _literal(path: Path) -> str:
    """Return a path for sbatch, which replaces the letters after a single % by numbers."""
    return str(path).replace("%", "%%")


def run_arguments(config: Config) -> list[str]:
    """Return the command-line arguments that determine one run: all its settings."""
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
    """Return the batch script of an array with one task per run.

    Args:
        planned: the runs.
        study: absolute path of their folder.
        resources: options of sbatch, as in ``directives``.
        common: arguments of ``orthocond train`` that all runs share.
        nodes: number of nodes for each run.
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
    """Return the names of the runs of a study that are in the queue, waiting or running.

    Raises:
        ClusterError: Slurm is not installed, or refuses the request.
    """
    names: set[str] = set()
    for line in _slurm("squeue", "--me", "--noheader", "--array", "--format=%F %K").splitlines():
        job, _, task = line.partition(" ")
        record = study / FOLDER / f"{job}.runs"
        if record.is_file() and task.strip().isdigit():
            names.update(record.read_text(errors="replace").splitlines()[int(task) :][:1])
    return names


def submit(text: str, planned: Sequence[Planned], study: Path) -> str:
    """Submit a script to Slurm, record which task trains which run, and return the job number.

    Raises:
        ClusterError: Slurm is not installed, or refuses the script.
        UserError: the folder of the study cannot be written.
    """
    folder = study / FOLDER
    make_folder(folder)
    job = _slurm("sbatch", "--parsable", text=text).strip().partition(";")[0]
    record = folder / f"{job}.runs"
    write_bytes(record, "".join(f"{p.folder.name}\n" for p in planned).encode())
    return job


def _slurm(command: str, *arguments: str, text: str = "") -> str:
    """Run a command of Slurm with ``text`` as its input, and return its output."""
    if shutil.which(command) is None:
        raise ClusterError(f"there is no Slurm on this machine: {command} is missing")
    done = subprocess.run(
        [command, *arguments],
        input=text,
        capture_output=True,
        text=True,
        errors="surrogateescape",  # the name of a folder need not be UTF-8
    )
    if done.returncode:
        raise ClusterError(f"{command} refuses: {done.stderr.strip() or done.returncode}")
    return done.stdout


def hand_over(
    grid: Grid,
    study: Path,
    resources: Sequence[str],
    common: Sequence[str],
    nodes: int,
    num_processes: int,
    dry_run: bool,
) -> None:
    """Submit the runs that are neither complete nor queued, or print the script.

    Args:
        grid: the runs to train.
        study: the folder of the runs, which all machines can access.
        resources: options of sbatch, as in ``directives``.
        common: arguments of ``orthocond train`` that all runs share.
        nodes: number of nodes for each run.
        num_processes: number of processes on each node.
        dry_run: print the script, submit nothing, and treat queued runs as missing.

    Raises:
        UserError: the data cannot be loaded, a run has another configuration or can't be made, or
            an option of sbatch is invalid.
        ClusterError: Slurm is not installed, or refuses a request.
    """
    study = study.absolute()
    data = load_data(**grid.config.data.model_dump())
    runs = plan(grid, study, data, nodes * num_processes)
    common = [*common, f"--num-processes={num_processes}"] if num_processes > 1 else common
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

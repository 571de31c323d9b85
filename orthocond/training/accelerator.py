"""The device and the processes of a training, whatever the environment says to accelerate."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs

from orthocond.errors import UserError
from orthocond.training.environment import has_bfloat16

AUTOCAST = {"bfloat16": "bf16", "float16": "fp16"}
LONGEST = 365 * 86_400  # seconds of a timeout; C++ counts them in 64 bits of nanoseconds
OTHER_TRAINING = tuple(  # variables that make accelerate train with other software
    f"ACCELERATE_USE_{name}" for name in ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG")
)
OF_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")
NO = ("", "0", "n", "no", "f", "false", "off")


def make_accelerator(precision: str, timeout: float = 600) -> Accelerator:
    """Return the available device and processes, with autocast if the precision needs it.

    Args:
        precision: as in a Config.
        timeout: seconds that a process waits for another one that does not answer.

    Raises:
        UserError: precision float16 without a GPU; a timeout that is not from 1 second to a year;
            a variable of the environment that asks accelerate for another kind of training; or
            variables as of a launcher that started no processes.
    """
    if not 1 <= timeout <= LONGEST:
        raise UserError(f"timeout {timeout:g}: allowed are 1 to {LONGEST:,} seconds (a year)")
    for name in OTHER_TRAINING:
        if os.environ.get(name, "").lower() not in NO:
            raise UserError(
                f"{name}={os.environ[name]} in the environment: only data-parallel training is "
                f"allowed; unset {name}"
            )
    gpu = torch.cuda.is_available()
    if precision == "float16" and not gpu:
        raise UserError("precision float16 needs a GPU: use bfloat16 or float32 here")
    if precision == "bfloat16" and not gpu and not has_bfloat16():
        warnings.warn(
            "this CPU emulates bfloat16, which is tens of times slower than float32: "
            "use --set precision=float32",
            stacklevel=2,
        )
    # accelerate keeps one state per process, but a second session may have another precision.
    AcceleratorState._reset_state()
    left = {name: os.environ[name] for name in OF_LAUNCHER if name in os.environ}
    try:
        return Accelerator(
            mixed_precision=AUTOCAST.get(precision, "no"),
            cpu=not gpu,
            # These two win over ACCELERATE_GRADIENT_ACCUMULATION_STEPS, which would divide the loss
            # (the argument of that name does not), and over ACCELERATE_DYNAMO_BACKEND.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            dynamo_backend="no",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=timeout))],
        )
    except ValueError as error:
        if len(left) in (0, len(OF_LAUNCHER)):  # the error is about something else
            raise
        raise _no_launcher(left, error) from None


def _no_launcher(left: Mapping[str, str], error: ValueError) -> UserError:
    """Return the error for variables of a launcher that did not start this process."""
    named = ", ".join(f"{name}={value[:20]}" for name, value in left.items())
    return UserError(
        f"{named} in the environment, but no launcher has set the rest: unset "
        f"{' and '.join(left)}, or start the processes with a launcher ({error})"
    )

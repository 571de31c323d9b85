"""Torch's batch norms: which input they take, and which of them a whitening layer can replace."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from orthocond.errors import UserError

KINDS: tuple[type[_BatchNorm], ...] = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
PLAIN_FORWARDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


def spatial_of(bn: nn.Module) -> int | None:
    """Return 1, 2 or 3 as in the name of a batch norm's class, or None for a SyncBatchNorm.

    Example:
        >>> spatial_of(torch.nn.BatchNorm3d(4)), spatial_of(torch.nn.SyncBatchNorm(4))
        (3, None)
    """
    return next((n for n, kind in enumerate(KINDS, 1) if isinstance(bn, kind)), None)


def require_replaceable(bn: nn.Module, spatial: int, name: str | None = None) -> _BatchNorm:
    """Return the batch norm, or raise a UserError if whitening can't equal it in evaluation.

    Args:
        bn: the module to replace.
        spatial: 1, 2 or 3 for the whitening layer of that name.
        name: the module's name in the network; None for a module that is not in one.

    Raises:
        UserError: the module is not a batch norm for this kind of input; it has no running
            statistics or is not initialized; or it has hooks, parametrizations or a process group,
            which the new layer would lose.
    """
    kind = type(bn).__name__
    what = f"the {kind}" if name is None else f"layer {name!r}, a {kind},"
    if any(is_lazy(t) for t in (*bn.parameters(), *bn.buffers())):
        raise UserError(f"{what} is not initialized: run the model on one batch before")
    if not isinstance(bn, (KINDS[spatial - 1], nn.SyncBatchNorm)):
        raise UserError(
            f"{what} is not a batch norm that whitening can replace: allowed are "
            f"BatchNorm{spatial}d, SyncBatchNorm and timm's BatchNormAct2d"
        )
    if not bn.track_running_stats or bn.running_mean is None or bn.running_var is None:
        raise UserError(
            f"{what} has no running statistics, so its evaluation uses the batch, which whitening "
            f"changes at once: build DecorrelatedBatchNorm{spatial}d(..., "
            "track_running_stats=False) for this"
        )
    if parametrize.is_parametrized(bn):
        raise UserError(
            f"{what} has parametrizations, which the new layer would lose: remove them before by "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    if any("hooks" in attribute and bool(value) for attribute, value in vars(bn).items()):
        raise UserError(
            f"{what} has hooks, which the new layer would lose: convert it before a probe or "
            "another hook is added"
        )
    if getattr(bn, "process_group", None) is not None:
        raise UserError(
            f"{what} has a process group: whitening includes all processes, so build it without"
        )
    return bn


def require_plain_forward(bn: _BatchNorm) -> None:
    """Raise a UserError if a batch norm's forward does more than normalise."""
    if "forward" in vars(bn):
        raise UserError(
            f"the forward of this {type(bn).__name__} was replaced on the object, as accelerate "
            "does, and the new layer would lose it: convert the batch norm before"
        )
    if type(bn).forward not in PLAIN_FORWARDS:
        raise UserError(
            f"the forward of {type(bn).__name__} is its own, and can do more than normalise: for "
            "timm's BatchNormAct2d use oc.convert_batch_norm, which keeps drop and activation"
        )

"""Other people's networks: torchvision's models by name, and weights from a file that is only read.

A pickle can run any program when it is loaded. So a file of weights is safetensors, or what
``torch.load`` takes with ``weights_only``: names and tensors, refused without being run otherwise.
"""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from orthocond.errors import UserError, nearest


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """A state dict from a safetensors file, or one that ``torch.save`` wrote.

    Raises:
        UserError: the file is missing, damaged, or holds anything but names and tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # what it warns of raises next
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{str(path)!r} is a pickle of more than tensors, or no file of weights: it was not "
            "run; allowed are safetensors, or torch.save(model.state_dict(), ...)"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot read the weights {str(path)!r}: {error.strerror or error}"
        ) from None
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"the weights {str(path)!r} are damaged: {reason}") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        found = f"keys {', '.join(map(str, list(state)[:4]))}" if isinstance(state, dict) else ""
        raise UserError(
            f"{str(path)!r} is no state dict ({found or type(state).__name__}): "
            "save names and tensors alone"
        )
    return state


def torchvision_model(name: str, weights: str | Path | None = None) -> nn.Module:
    """One of torchvision's classification models.

    Args:
        name: as in ``torchvision.models.list_models()``.
        weights: a file for ``read_weights``; its classifier decides the number of classes. None
            takes random weights, the same every time.

    Raises:
        UserError: an unknown name, or weights of another network.

    Example:
        >>> torchvision_model("resnet18").fc.out_features
        1000
    """
    import torchvision

    allowed = torchvision.models.list_models(module=torchvision.models)
    if name not in allowed:
        raise UserError(
            f"unknown model {name!r}: allowed are the names in torchvision.models.list_models()"
            f"{nearest(name, allowed)}"
        )

    def build(**about: int) -> nn.Module:
        with warnings.catch_warnings(action="ignore"):  # of how two old networks draw their weights
            return torchvision.models.get_model(name, weights=None, **about)

    torch.manual_seed(0)
    model = build()
    if weights is None:
        return model
    state = read_weights(weights)
    *_, (last, parameter) = model.named_parameters()  # the classifier's, of one row a class
    classes = len(state[last]) if last in state and state[last].dim() else len(parameter)
    if classes != len(parameter):
        model = build(num_classes=classes)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).splitlines()[1:2]).strip().rstrip(".")
        raise UserError(f"the weights {str(weights)!r} are not of {name}: {reason[:200]}") from None
    return model

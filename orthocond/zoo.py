"""Other people's networks: models of torchvision and timm by name, and weights from a file.

A pickle can run any program when it is loaded. So a file of weights is only read: it is
safetensors, or what ``torch.load`` takes with ``weights_only``, names and tensors, and is refused
without being run otherwise.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from orthocond.errors import UserError, is_out_of_memory, nearest

TIMM = "timm:"


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
        if is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
        raise UserError(f"the weights {str(path)!r} are damaged: {reason}") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        found = f"keys {', '.join(map(str, list(state)[:4]))}" if isinstance(state, dict) else ""
        raise UserError(
            f"{str(path)!r} is no state dict ({found or type(state).__name__}): "
            "save names and tensors alone"
        )
    return state


def zoo_model(name: str, weights: str | Path | None = None) -> nn.Module:
    """Return one of torchvision's classification models, or one of timm's where that is installed.

    Args:
        name: as in ``torchvision.models.list_models()``, or ``timm:`` and a name as in
            ``timm.list_models()``, with or without the tag of its weights.
        weights: a file for ``read_weights``; its classifier decides the number of classes. None
            takes random weights, the same every time. Nothing is downloaded.

    Raises:
        UserError: an unknown name, weights of another network, or timm is not installed.

    Example:
        >>> zoo_model("resnet18").fc.out_features
        1000
    """
    if name.startswith(TIMM):
        return timm_model(name.removeprefix(TIMM), weights)
    return torchvision_model(name, weights)


def torchvision_model(name: str, weights: str | Path | None = None) -> nn.Module:
    """Return one of torchvision's classification models; see ``zoo_model``.

    Example:
        >>> torchvision_model("resnet18").fc.out_features
        1000
    """
    import torchvision

    allowed = torchvision.models.list_models(module=torchvision.models)
    if name not in allowed:
        raise UserError(
            f"unknown model {name!r}: allowed are the names in torchvision.models.list_models(), "
            f"and {TIMM}NAME for a model of timm{nearest(name, allowed)}"
        )

    def build(**about: Any) -> nn.Module:
        return torchvision.models.get_model(name, weights=None, **about)

    def classifier(model: nn.Module) -> str:
        *_, (last, _) = model.named_parameters()
        return last

    return _built(name, build, classifier, weights)


def timm_model(name: str, weights: str | Path | None = None) -> nn.Module:
    """Return one of timm's models; see ``zoo_model``.

    Example:
        >>> timm_model("resnet18").fc.out_features  # doctest: +SKIP
        1000
    """
    if find_spec("timm") is None:
        raise UserError("the package timm is missing: pip install timm")
    import timm

    # create_model would download what "hf-hub:..." names, and raises for a tag that there is not.
    allowed = timm.list_models()
    tagged = timm.list_pretrained() if "." in name else []
    if name not in allowed and name not in tagged:
        names = [TIMM + n for n in (*allowed, *tagged)]
        raise UserError(
            f"unknown model {TIMM + name!r}: allowed are {TIMM} and the names in "
            f"timm.list_models(){nearest(TIMM + name, names)}"
        )

    def build(**about: Any) -> nn.Module:
        return timm.create_model(name, pretrained=False, **about)

    def classifier(model: Any) -> str:
        layers = model.pretrained_cfg["classifier"] or ""  # an encoder has none
        # Of several, such as one for distillation, all have a row a class.
        return f"{layers if isinstance(layers, str) else layers[0]}.weight"

    return _built(TIMM + name, build, classifier, weights)


def _built(
    name: str,
    build: Callable[..., nn.Module],
    classifier: Callable[[nn.Module], str],
    weights: str | Path | None,
) -> nn.Module:
    """Return the network with random weights, or with those of a file and its number of classes.

    Args:
        name: for the error.
        build: makes the network, of ``num_classes`` where that is given.
        classifier: names the parameter of the network that has a row a class.
        weights: a file for ``read_weights``, or None.
    """
    torch.manual_seed(0)
    with warnings.catch_warnings(action="ignore"):  # of how two old networks draw their weights
        model = build()
        if weights is None:
            return model
        state = read_weights(weights)
        last, parameters = classifier(model), dict(model.named_parameters())
        if last in parameters and last in state and state[last].dim():
            classes = len(state[last])
            model = build(num_classes=classes) if classes != len(parameters[last]) else model
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        reason = " ".join(str(error).splitlines()[1:2]).strip().rstrip(".")
        raise UserError(f"the weights {str(weights)!r} are not of {name}: {reason[:200]}") from None
    return model

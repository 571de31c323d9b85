"""Networks of torchvision and timm by name, with weights from a file.

A pickle can run any program when it is loaded. So a file of weights must be a safetensors file, or
contain only names and tensors, so that ``torch.load`` reads it with ``weights_only``. Any other
file is refused, and no code in it runs.
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
    """Return the state dict in a safetensors file, or in a file written by ``torch.save``.

    Raises:
        UserError: the file is missing or damaged, or contains anything but names and tensors.
    """
    from safetensors.torch import load_file

    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # the same problem raises next
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{str(path)!r} is a pickle of more than tensors, or not a file of weights, and was "
            "not run: allowed are safetensors, or torch.save(model.state_dict(), ...)"
        ) from None
    except OSError as error:
        raise UserError(
            f"cannot read the weights {str(path)!r}: {error.strerror or error}"
        ) from None
    except Exception as error:  # a damaged file makes torch and pickle raise errors of any class
        if is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"the weights {str(path)!r} are damaged, or are not a file of weights: {reason}"
        ) from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        found = f"keys {', '.join(map(str, list(state)[:4]))}" if isinstance(state, dict) else ""
        raise UserError(
            f"{str(path)!r} is not a state dict ({found or type(state).__name__}): "
            "save only names and tensors, as torch.save(model.state_dict(), ...) does"
        )
    return state


def zoo_model(name: str, weights: str | Path | None = None) -> nn.Module:
    """Return a classification model of torchvision, or a model of timm if timm is installed.

    Nothing is downloaded.

    Args:
        name: a name in ``torchvision.models.list_models()``, or ``timm:`` followed by a name in
            ``timm.list_models()``, with or without the tag of its weights.
        weights: a file for ``read_weights``, whose classifier decides the number of classes. None
            takes random weights, which are the same every time.

    Raises:
        UserError: the name is unknown, the weights do not fit, or timm is not installed.

    Example:
        >>> zoo_model("resnet18").fc.out_features
        1000
    """
    if name.startswith(TIMM):
        return timm_model(name.removeprefix(TIMM), weights)
    return torchvision_model(name, weights)


def torchvision_model(name: str, weights: str | Path | None = None) -> nn.Module:
    """Return a classification model of torchvision; see ``zoo_model``.

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
    """Return a model of timm; see ``zoo_model``.

    Example:
        >>> timm_model("resnet18").fc.out_features  # doctest: +SKIP
        1000
    """
    if find_spec("timm") is None:
        raise UserError("the package timm is missing: pip install timm")
    import timm

    # Check the name: create_model would download "hf-hub:...", and would raise for unknown tags.
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
        # Some models have several classifiers (one for distillation); each has one row per class.
        return f"{layers if isinstance(layers, str) else layers[0]}.weight"

    return _built(TIMM + name, build, classifier, weights)


def _built(
    name: str,
    build: Callable[..., nn.Module],
    classifier: Callable[[nn.Module], str],
    weights: str | Path | None,
) -> nn.Module:
    """Return the network with random weights, or with the weights and number of classes of a file.

    Args:
        name: name of the network, for the error.
        build: function that makes the network; ``num_classes`` is an optional argument.
        classifier: function that returns the name of a parameter with one row per class.
        weights: a file for ``read_weights``, or None.

    Raises:
        UserError: the file can't be read, or its weights do not fit the network.
    """
    # The warnings are those of two old networks, on their initialisation.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(action="ignore"):
        torch.manual_seed(0)
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
        raise UserError(f"the weights {str(weights)!r} do not fit {name}: {reason[:200]}") from None
    return model

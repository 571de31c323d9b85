"""A warning where a weight moves without the step that treatments are hooked on.

Note [Missed steps]
    A step that is never called has no hook to say so: SAM's first_step and second_step call the
    base optimizer's, so a handle bound to the wrapper treats nothing, silently. What is sure to run
    is the parameter's own gradient. Where the parameter has changed since its last gradient and no
    hook has run, a step was missed. One such change is normal (SAM's own perturbation, a
    checkpoint that is loaded, averaged weights swapped in and out between two micro-batches), and
    the hook after it clears the count. Two in a row are a pattern. The hook is on the gradient, and
    not on the forward pass, since torch.compile would have to trace it there.
"""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor, nn

MISSED = 2  # Note [Missed steps]


class Watch:
    """Warns once where a parameter is trained by steps that the treatments do not see.

    Args:
        name: of the layer.
    """

    def __init__(self, name: str) -> None:
        self.bound_to: str | None = None
        self._name, self._handle = name, None
        self._parameter: nn.Parameter | None = None
        self._warned = False
        self.stepped()

    _handle: Any

    def follow(self, parameter: nn.Parameter) -> None:
        """Watch a parameter, and the one before no longer; one that is frozen can't be watched."""
        if parameter is not self._parameter and parameter.requires_grad:
            self.stop()
            self._parameter = parameter
            self._handle = parameter.register_post_accumulate_grad_hook(self._on_gradient)

    def stop(self) -> None:
        """Watch nothing."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = self._parameter = None

    def stepped(self) -> None:
        """Note that the hook on the step has run."""
        self._seen: tuple[int, int] | None = None
        self._missed = 0

    def _on_gradient(self, parameter: Tensor) -> None:
        now = (parameter.data_ptr(), parameter._version)
        if self._seen is not None and now != self._seen:
            self._missed += 1
        self._seen = now
        if self._missed >= MISSED and not self._warned:
            self._warned = True
            found = (
                "bind was never called"
                if self.bound_to is None
                else f"the step of the {self.bound_to} that bind was given is never called"
            )
            warnings.warn(
                f"layer {self._name!r} is not treated: its weight moves, but {found}; bind the "
                "optimizer whose step moves the weight (for SAM its base_optimizer)",
                stacklevel=2,
            )

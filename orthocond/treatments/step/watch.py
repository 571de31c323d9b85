"""Warning for a weight that changes without the step that its treatments are hooked on.

Note [Missed steps]
    A step that is never called can't run a hook. For example, SAM's first_step and second_step call
    the step of the base optimizer, so a handle bound to SAM itself would treat nothing, silently.
    But a hook on the parameter's gradient always runs. If the parameter has changed since its last
    gradient and no hook on the step has run, a step was missed. One such change is normal (SAM's
    own perturbation, a loaded checkpoint, averaged weights swapped in and out between two
    micro-batches), and the next hook on the step resets the count. Two in a row mean that steps are
    missed. The hook is on the gradient and not on the forward pass, where torch.compile would have
    to trace it.
"""

from __future__ import annotations

import warnings
from typing import Any
from weakref import WeakSet

from torch import Tensor, nn

MISSED = 2  # changes in a row that give the warning, see Note [Missed steps]

_WATCHES: WeakSet[Watch] = WeakSet()


class Watch:
    """A watch that warns once if steps that the treatments do not see train a parameter.

    Args:
        name: name of the layer.
    """

    def __init__(self, name: str) -> None:
        self.bound_to: str | None = None
        self._name, self._handle = name, None
        self._parameter: nn.Parameter | None = None
        self._warned = False
        self.stepped()

    _handle: Any

    def follow(self, parameter: nn.Parameter) -> None:
        """Watch this parameter instead of the one before; do nothing if it is frozen.

        Another watch on it belongs to a handle that was dropped, since two handles do not treat
        the steps of one parameter: it stops.
        """
        if parameter is not self._parameter and parameter.requires_grad:
            for watch in list(_WATCHES):
                if watch is self or watch._parameter is parameter:
                    watch.stop()
            _WATCHES.add(self)
            self._parameter = parameter
            self._handle = parameter.register_post_accumulate_grad_hook(self._on_gradient)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, whose parameter has no hook and which no optimizer calls."""
        return {**vars(self), "_handle": None, "bound_to": None, "_seen": None, "_missed": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Let a copy watch the copied parameter."""
        parameter = state["_parameter"]
        vars(self).update(state, _parameter=None)
        if parameter is not None:
            self.follow(parameter)

    def stop(self) -> None:
        """Stop watching the parameter."""
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
                else f"the step of the {self.bound_to} given to bind is never called"
            )
            warnings.warn(
                f"layer {self._name!r} is not treated: its weight changes, but {found}; bind the "
                "optimizer whose step changes the weight (for SAM its base_optimizer)",
                stacklevel=2,
            )

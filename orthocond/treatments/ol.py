"""OL, the orthogonal loss (eq. 12)."""

from __future__ import annotations

import torch
from torch import Tensor

from orthocond.treatments.protocol import Treatment


class OrthogonalLoss(Treatment):
    """Adds ``ol_weight`` |W W^T - I|_F to the loss.

    For a tall W (m > n) it can't fall below sqrt(m - n); its gradient is that of |W^T W - I|_F up
    to scale, so the columns are what becomes orthonormal.
    """

    name = "ol"
    acts_on = "loss"

    def penalty(self, W: Tensor) -> Tensor:
        """The weighted loss of eq. 12."""
        identity = torch.eye(len(W), dtype=W.dtype, device=W.device)
        return self.options.ol_weight * torch.linalg.matrix_norm(W @ W.mT - identity)

"""OL, the orthogonal loss (eq. 12)."""

from __future__ import annotations

import torch
from torch import Tensor

from orthocond.treatments.protocol import Treatment


class OrthogonalLoss(Treatment):
    """OL: adds ``ol_weight`` |W W^T - I|_F to the loss.

    For a tall W (m > n) the norm can't fall below sqrt(m - n). Its gradient is proportional to the
    gradient of |W^T W - I|_F, so it is the columns that become orthonormal.
    """

    name = "ol"
    acts_on = "loss"

    def penalty(self, W: Tensor) -> Tensor:
        """Return the weighted loss of eq. 12, 0-d."""
        identity = torch.eye(len(W), dtype=W.dtype, device=W.device)
        return self.options.ol_weight * torch.linalg.matrix_norm(W @ W.mT - identity)

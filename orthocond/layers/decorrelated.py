"""Decorrelated batch normalization: whitening by the covariance of the batch."""

from __future__ import annotations

from orthocond.layers.decorrelated_base import DecorrelatedBatchNorm


class DecorrelatedBatchNorm2d(DecorrelatedBatchNorm):
    """Batch normalization that also decorrelates the channels (ZCA whitening).

    y = gamma (P + eps I)^(-1/2) (x - mu) + beta, with the mean mu and the covariance P (eq. 2) of
    the channels. In training they are computed over the batch and its pixels; in evaluation they
    are the running statistics.

    The layer is a drop-in replacement for ``nn.BatchNorm2d``, and equals it if
    ``groups == num_features``. ``from_batch_norm`` and ``oc.convert_batch_norm`` make it of the
    batch norms of a trained network. It computes in float32 under autocast and for half-precision
    inputs (float64 for float64), decomposes in float64, and returns the input's dtype. On a device
    without float64 (MPS) all that is d x d is computed on the CPU, with every solver. In training
    under torch.distributed the moments, and the gradient through them, include the batches of all
    processes. So every process must take part in each forward and backward.

    The covariance has a rounding error of about 1e-8 of its largest eigenvalue in float32 (a
    thousand times more with TF32 products on CUDA). Output and gradient amplify it by
    1 / (l_min + eps), so an eps much smaller than the squared features costs digits.

    Running statistics are moving averages of a covariance that changes with the weights. At a high
    learning rate they are outdated: ``oc.recalibrate`` replaces them. They are at least float32,
    also in a half-precision network.

    The layer is not a subclass of torch's ``_BatchNorm``. So
    ``SyncBatchNorm.convert_sync_batchnorm`` does not convert it (it is synchronised already), and
    ``torch.optim.swa_utils.update_bn`` skips it: call ``oc.recalibrate(swa_model, loader)`` on an
    averaged model. Under ``torch.utils.checkpoint`` each forward runs twice and updates the running
    statistics twice, as in ``nn.BatchNorm2d``.

    Args:
        num_features: C, the number of channels.
        eps: added to the eigenvalues of the covariance; in units of the squared features.
        momentum: momentum of the running statistics; None for a cumulative average.
        affine: True to learn gamma and beta (C,).
        track_running_stats: True to keep running statistics. Otherwise evaluation uses the
            statistics of the batch.
        groups: number of channel groups. Each group of C / groups channels is whitened separately.
        solver: ``eigh``; ``minimax``, matrix products only, as accurate as ``eigh`` up to the
            declared condition number, and without synchronising the host with the device; or
            ``newton-schulz``, a few steps, inexact. Choose ``minimax`` for a step that must not
            wait for a GPU, as in a CUDA graph.
        backward: backward rule of ``oc.matrix_inv_sqrt``: exact, pade, taylor or raw.
        device, dtype: of the parameters, as in ``nn.BatchNorm2d``. Choose them to build the layer
            where it is used, without a copy. The running statistics are at least float32.
        steps: number of steps of ``newton-schulz``.
        condition: declared largest condition number of P + eps I for ``minimax``, 1 to 1e12. It is
            at most 1 + l_max / eps, so the default None, 1e4 / eps but at most 1e12, is enough for
            l_max up to 1e4. It sets the number of steps: 9 for 1e6, and one more for each factor
            of about 10. A larger condition number is counted in ``outcomes``; the whitening is then
            incomplete in the directions of the smallest eigenvalues.
        running: statistic that is averaged for evaluation beside the mean: the ``covariance`` of
            each batch, or its ``root`` (P + eps I)^(-1/2), as in the paper's released code and in
            IterNorm. Choose ``root`` to reproduce their evaluation, or to evaluate without a
            decomposition; it includes eps, and goes stale sooner. A state dict of one can be loaded
            into the other.

    Attributes:
        running_mean: (C,).
        running_covariance: (groups, d, d), unbiased; None if ``running`` is ``root``.
        running_root: (groups, d, d); None if ``running`` is ``covariance``.
        outcomes: SpectralOutcomes. It counts batches with NaN or Inf. They give NaN and do not
            change the running statistics.

    Shape:
        (B, C, H, W) to (B, C, H, W), contiguous or channels_last.

    Raises:
        UserError: an argument is not allowed; the input is not (B, C, H, W) of a real floating
            dtype; in training, the batch has fewer than two pixels, or with ``minimax`` and eps = 0
            no more pixels than channels in a group.
        RuntimeError: ``load_state_dict`` gets the tensors of a batch norm.

    Example:
        >>> norm = oc.DecorrelatedBatchNorm2d(3, eps=1e-5, affine=False)
        >>> y = norm(torch.randn(8, 3, 4, 4)).transpose(0, 1).flatten(1)
        >>> torch.allclose(y.cov(correction=0), torch.eye(3), atol=1e-3)
        True
    """

    spatial = 2


class DecorrelatedBatchNorm1d(DecorrelatedBatchNorm):
    """Decorrelated batch normalization of vectors or sequences, in place of ``nn.BatchNorm1d``.

    Arguments, attributes and errors are those of ``DecorrelatedBatchNorm2d``. The covariance is
    that of the channels over the batch, or over the batch and the positions of its sequences.

    Shape:
        (B, C) to (B, C), or (B, C, L) to (B, C, L).

    Example:
        >>> norm = oc.DecorrelatedBatchNorm1d(3, eps=1e-5, affine=False)
        >>> torch.allclose(norm(torch.randn(64, 3)).mT.cov(correction=0), torch.eye(3), atol=1e-3)
        True
    """

    spatial = 1


class DecorrelatedBatchNorm3d(DecorrelatedBatchNorm):
    """Decorrelated batch normalization of volumes or videos, in place of ``nn.BatchNorm3d``.

    Arguments, attributes and errors are those of ``DecorrelatedBatchNorm2d``. The covariance is
    that of the channels over the batch and all positions.

    Shape:
        (B, C, D, H, W) to (B, C, D, H, W), contiguous or channels_last_3d.

    Example:
        >>> norm = oc.DecorrelatedBatchNorm3d(3, eps=1e-5, affine=False)
        >>> y = norm(torch.randn(8, 3, 2, 4, 4)).transpose(0, 1).flatten(1)
        >>> torch.allclose(y.cov(correction=0), torch.eye(3), atol=1e-3)
        True
    """

    spatial = 3

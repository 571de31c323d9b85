"""Whitening in inference: the cached root of evaluation, and folding into other layers."""

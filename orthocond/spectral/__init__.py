"""Mathematics on tensors: no modules, no state."""

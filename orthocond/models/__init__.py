"""Networks with a spectral meta-layer, and other people's networks."""

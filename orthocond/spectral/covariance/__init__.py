"""Functions of a covariance, computed from its features: root, power and logarithm."""

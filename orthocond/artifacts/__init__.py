"""Files on disk: runs, checkpoints, manifests, locks, CSV tables and timing artifacts."""

"""Which runs of folders belong to a study, and which of them may be compared."""

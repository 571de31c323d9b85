"""Training: the session of a grid of runs, the trainer of one run, the stepper of one step."""

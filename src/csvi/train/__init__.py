"""The training loop, its optimiser, schedule and checkpoints."""

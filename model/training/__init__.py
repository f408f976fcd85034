"""The training loop: objectives, optimizers, checkpoints, metrics."""

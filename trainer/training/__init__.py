"""Learning: strategies, optimizers, a step, the loop, checkpoints and what is reported."""

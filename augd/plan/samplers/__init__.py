"""One sampler per op: it draws the op's parameters for all rows of a chunk at once."""

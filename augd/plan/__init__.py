"""Planning: what will happen to each sample. Pure NumPy, no I/O."""

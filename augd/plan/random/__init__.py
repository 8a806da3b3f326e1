"""Random words by counters (Philox), and functions whose bits are the same everywhere."""

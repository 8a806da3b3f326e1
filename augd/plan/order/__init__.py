"""The order of samples: permutations, block shuffles, and what a stream draws at each place."""

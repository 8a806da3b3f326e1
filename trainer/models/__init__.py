"""Networks: where they come from, their stages, their heads and weights."""

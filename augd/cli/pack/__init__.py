"""Packed sets: photos with restart markers in tar shards, and an index of these or of others'."""

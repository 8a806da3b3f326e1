"""Packed datasets: JPEGs with restart markers in tar shards, and indexes of any tar shards."""

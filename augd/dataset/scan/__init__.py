"""Scans: a folder, a manifest or tar shards become an index file."""

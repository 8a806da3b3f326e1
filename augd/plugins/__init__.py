"""Operators' code: ops and sources of samples that a producer imports by name."""

"""Diagnostics: what limits a stream, how fast its parts are, and what was drawn for a sample."""

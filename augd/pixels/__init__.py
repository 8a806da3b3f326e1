"""Pixels: bytes of a file in, finished rows out."""

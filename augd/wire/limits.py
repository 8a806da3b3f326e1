"""Bounds of the protocol that more than one room needs. Imports nothing."""

HEADER_BYTES_MAX = 64 * 1024

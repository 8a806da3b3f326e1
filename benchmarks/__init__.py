"""Benchmarks: one question per file; competitors in processes of their own, in turns."""

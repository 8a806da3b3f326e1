"""The `trainer` command: one file per command."""

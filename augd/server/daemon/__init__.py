"""The daemon: starts producers, serves clients, and keeps nothing that a restart would miss."""

"""The relay: producers of another host, for a daemon that is reached over TCP."""

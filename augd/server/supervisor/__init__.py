"""The supervisor: starts the daemon, and starts it again when it dies unasked."""

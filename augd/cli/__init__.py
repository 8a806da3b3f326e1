"""The `augd` command: `entry` starts it, `app` lists the commands, a module holds each one's work.

No daemon, producer or client loads this package, except `entry`, by which a daemon starts.
"""

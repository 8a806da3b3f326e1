"""Signals as bytes on a socket, so that one poll loop waits for them, too."""

from __future__ import annotations

import signal
import socket


def signal_fd() -> socket.socket:
    """Turn SIGINT and SIGTERM into bytes, their numbers, on a socket that a poller watches."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    signal.set_wakeup_fd(far.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    return near


def close_signal_fd(near: socket.socket) -> None:
    """Stop that; a signal that comes later says nothing, as nobody reads it any longer."""
    signal.set_wakeup_fd(-1)
    near.close()

"""Signals as bytes on a socket, so that a poll loop can wait for them."""

from __future__ import annotations

import signal
import socket


def signal_fd() -> socket.socket:
    """Return a socket that receives the numbers of SIGINT and SIGTERM as bytes."""
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    signal.set_wakeup_fd(far.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    return near


def close_signal_fd(near: socket.socket) -> None:
    """Stop writing signals to the socket, and close it; later signals are ignored."""
    signal.set_wakeup_fd(-1)
    near.close()

"""The program: `augd.server.dashboard LINK_FD LISTENER_FD DAEMON_PID [PLUGIN...]`."""

from __future__ import annotations

import signal
import socket
import sys

from augd.process.parent_death import die_with


def main(link_fd: int, listener_fd: int, daemon_pid: int, *plugins: str) -> None:
    """Answer HTTP on an inherited listener until the daemon ends."""
    die_with(daemon_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from augd.server.dashboard.app import run
    from augd.server.dashboard.daemon_link import DaemonGone, DaemonLink

    try:
        with DaemonLink(socket.socket(fileno=link_fd)) as daemon_link:
            run(daemon_link, socket.socket(fileno=listener_fd), plugins)
    except (EOFError, DaemonGone):
        pass  # the daemon ended before the dashboard had started


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])

"""Sockets, arenas and file descriptors: the only users of zmq and memfd."""

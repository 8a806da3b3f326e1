"""Looking at what augd does and sends: the commands that change nothing.

Beside the way of a batch. No module here is loaded by a daemon, a producer or a client.
"""

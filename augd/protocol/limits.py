"""Bounds of the protocol that several packages need. Imports nothing."""

HEADER_BYTES_MAX = 64 * 1024

# Pixels over sockets come in pieces of this size: ZeroMQ's sweet spot between a copy per
# message and a queue that one message fills.
PIECE_BYTES = 4 * 1024 * 1024

# The last epoch: the random counter and the messages have 32 bits for it.
EPOCH_LAST = 2**31 - 1

# Producers that a daemon starts itself, at most; remote producers have numbers from here on.
PLACES_MAX = 1024

# Paths that a client may ask for at a time; they take the daemon a few milliseconds.
PATHS_MAX = 256

# Bytes of them in an answer; a path of more is cut.
PATHS_BYTES_MAX = HEADER_BYTES_MAX - 4096

# Samples that a stream may have in quarantine; with more, the samples are not the cause.
QUARANTINE_MAX = 1000

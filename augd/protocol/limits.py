"""Bounds of the protocol that more than one room needs. Imports nothing."""

HEADER_BYTES_MAX = 64 * 1024

# Pixels over sockets come in pieces of this size: ZeroMQ's sweet spot between a copy per
# message and a queue that one message fills.
PIECE_BYTES = 4 * 1024 * 1024

# The last epoch that there is: it has 32 bits of the random counter, and messages carry no more.
EPOCH_LAST = 2**31 - 1

# Producers that a daemon starts itself, or has placed; numbers from here on are of remote ones.
PLACES_MAX = 1024

# Paths that a client may ask for at a time: a few milliseconds of the daemon's.
PATHS_MAX = 256

# Bytes of them in an answer; a path of more is cut.
PATHS_BYTES_MAX = HEADER_BYTES_MAX - 4096

# Samples that a stream may have in quarantine: beyond, something else than the samples is broken.
QUARANTINE_MAX = 1000

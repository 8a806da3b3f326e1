"""The exceptions of augd, as one tree.

Imports nothing, so that every process can raise and name the same errors. Across processes,
messages carry the code and the text, never a pickled exception. `error_from_code` turns a code back
into its class.

    AugdError
    ├── OptionError          an argument or option is out of range
    ├── RecipeError          a recipe does not validate; the message starts with the path
    ├── DatasetError         a dataset is missing, empty, unknown or cannot be read
    ├── ConnectError         no daemon answers at the address, or it went away
    ├── Forbidden            the daemon does not know this key, or the key is not for this
    ├── UntrustedAddress     another user could answer at the address, or does
    ├── AddressInUse         another daemon already serves this address
    ├── ProtocolError        the peer speaks another version, or broke the protocol
    ├── SpecMismatch         a resume asks for other content than the one that was saved
    ├── OverLimit            more memory or sessions than this machine or daemon grants
    ├── BatchesHeld          every slot of the stream is held by the caller
    ├── SampleFailed         a sample is bad and the stream's policy is to stop, or too many are
    ├── PluginFailed         an own op raised, or a plug-in or own source cannot be used
    ├── StoreError           an object store fails or rejects a request
    ├── ProducersUnhealthy   the producers keep exiting and cannot make batches
    ├── ReceiptMismatch      bytes arrived that are not the ones that were sent
    └── StreamClosed         the stream was closed, or a newer pass over it began
"""

from __future__ import annotations


def install_extra(name: str) -> str:
    """Return how to install the packages of an extra: the one place that holds it, for messages.

    augd is in no package index, and another project may take the name there. So it is installed
    from its source.
    """
    return f"python -m pip install -e '.[{name}]' in the checkout of augd"


class AugdError(Exception):
    """Base of every error that augd raises on purpose."""

    code = "INTERNAL"


class OptionError(AugdError, ValueError):
    """An argument is of the wrong type or out of its range."""

    code = "BAD_OPTION"


class RecipeError(AugdError, ValueError):
    """A recipe does not validate. The message starts with the path to the value."""

    code = "BAD_RECIPE"


class DatasetError(AugdError):
    """A dataset is missing, empty, unknown or unreadable."""

    code = "UNKNOWN_DATASET"


class ConnectError(AugdError, ConnectionError):
    """No daemon answers at the address, or the daemon went away."""

    code = "CONNECT"


class Forbidden(AugdError):
    """The daemon does not know this client's key or revoked it, or the key is not for this."""

    code = "FORBIDDEN"


class ConnectionLost(ConnectError):
    """An established connection ended. The client reconnects by itself within `timeout_s`."""

    code = "CONNECTION_LOST"


class UntrustedAddress(AugdError):
    """Another user could answer in a daemon's place at this address, or does. It is not trusted."""

    code = "UNTRUSTED_ADDRESS"


class AddressInUse(AugdError):
    """Another daemon already serves this address. It was left unharmed."""

    code = "ADDRESS_IN_USE"


class ProtocolError(AugdError):
    """The peer speaks another protocol version, or broke the protocol."""

    code = "MALFORMED"


class SpecMismatch(AugdError):
    """A resume asks for content that differs from what was saved. The message names the field."""

    code = "SPEC_MISMATCH"


class OverLimit(AugdError):
    """A request needs more than this machine or this daemon grants."""

    code = "OVER_LIMIT"


class BatchesHeld(AugdError):
    """The caller holds every slot of its stream, so no further batch can be delivered."""

    code = "BATCHES_HELD"


class SampleFailed(AugdError):
    """A sample is bad and the stream's policy says stop, or more are bad than it allows."""

    code = "SAMPLE_FAILED"


class PluginFailed(AugdError):
    """An own op raised or returned an invalid result; or a module or own source can't be used."""

    code = "PLUGIN_FAILED"


class StoreError(AugdError):
    """A store or a file system keeps failing, or a store has another object than was indexed."""

    code = "STORE_FAILED"


class ProducersUnhealthy(AugdError):
    """The producers keep exiting, so that batches cannot be made."""

    code = "PRODUCERS_UNHEALTHY"


class ReceiptMismatch(AugdError):
    """The digest of the received bytes differs from the digest of the bytes that were made."""

    code = "RECEIPT_MISMATCH"


class StreamClosed(AugdError):
    """The stream was closed, or a newer pass over it began."""

    code = "CLOSED"


_CLASSES: tuple[type[AugdError], ...] = (
    OptionError,
    RecipeError,
    DatasetError,
    ConnectError,
    Forbidden,
    UntrustedAddress,
    AddressInUse,
    ProtocolError,
    SpecMismatch,
    OverLimit,
    BatchesHeld,
    SampleFailed,
    PluginFailed,
    StoreError,
    ProducersUnhealthy,
    ReceiptMismatch,
    StreamClosed,
)
_BY_CODE: dict[str, type[AugdError]] = {
    **{cls.code: cls for cls in _CLASSES},
    "UNSUPPORTED_VERSION": ProtocolError,
    "PROTOCOL_STATE": ProtocolError,
    "DRAINING": ConnectionLost,
    "QUARANTINE_LIMIT": SampleFailed,
}


def error_from_code(code: str, message: str) -> AugdError:
    """Make the exception for a code that was received. Unknown codes give `AugdError`."""
    return _BY_CODE.get(code, AugdError)(message)


def counted(number: int, one: str, many: str = "") -> str:
    """Format a number with its noun: `counted(1, "image")`. Commas separate thousands."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def verb(number: int, one: str, many: str) -> str:
    """Choose the verb that goes with a number: `verb(1, "is", "are")`."""
    return one if number == 1 else many

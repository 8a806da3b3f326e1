"""One folder of an object store: its objects, and ranges of them. Only this module uses obstore.

The library obstore handles connections, signatures, retries with jitter, and resumes bodies that
break off. This module adds two things: every answer must be of the version that was indexed, and an
error says what to do.

Invariants: nothing is read of another version than the requested one. Every request ends within the
store's patience. No message quotes a store's answer except for its error code, since stores quote
keys and signatures. Calls may come from several threads at once.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from augd.dataset.stores.address import StoreAddress
from augd.dataset.stores.range_reader import ShardFacts
from augd.errors import DatasetError, OptionError, StoreError, install_extra

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

    Contents = bytes | memoryview

T = TypeVar("T")

PATIENCE_S: Final = 60.0
PATIENCE_VARIABLE: Final = "AUGD_STORE_PATIENCE"
_PATIENCE_MIN_S, _PATIENCE_MAX_S = 1.0, 240.0  # longer, a request's signature might expire
_CONNECT_S: Final = 5.0
_REQUEST_S: Final = 30.0
_BACKOFF_S: Final = (0.1, 5.0)
_NO_TIME: Final = datetime.fromtimestamp(0, UTC)  # obstore's text if a server sends none

_STATUS: Final = re.compile(r"status code: (\d{3})")
_CODE: Final = re.compile(r"<Code>(\w{1,64})</Code>")
_KIND: Final = re.compile(r"kind: (Timeout|Connect|Interrupted|Decode|Request|Unknown)\b")
_CREDENTIALS: Final = frozenset(
    (
        *("AccessDenied", "AllAccessDisabled", "AuthorizationHeaderMalformed", "ExpiredToken"),
        *("InvalidAccessKeyId", "InvalidToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch"),
        *("TokenRefreshRequired", "InvalidClientTokenId"),
    )
)
# Where obstore looks for a role if the environment names no key.
_ROLES: Final = ("/latest/api/token", "/latest/meta-data/", "169.254.170.2")


class ObjectFacts(NamedTuple):
    """An object as it was found: its name in the folder, size, ETag, and its version as a number.

    `etag` is empty if a store gives none. The version is then made of the time of the object's last
    change, and 0 if the store doesn't give that either.
    """

    name: str
    size_bytes: int
    etag: str
    version: int


def require_engine() -> None:
    """Reject stores if obstore is not installed. Raises OptionError."""
    if find_spec("obstore") is None:
        raise OptionError(
            "datasets on S3 and HTTP need obstore, which is not installed: "
            + install_extra("stores")
        )


def patience_s() -> float:
    """Return how long to wait for a store that doesn't answer.

    Raises:
        OptionError: AUGD_STORE_PATIENCE is no such time.
    """
    text = os.environ.get(PATIENCE_VARIABLE, "")
    try:
        found = float(text or PATIENCE_S)
    except ValueError:
        found = -1.0
    if not _PATIENCE_MIN_S <= found <= _PATIENCE_MAX_S:
        raise OptionError(
            f"{PATIENCE_VARIABLE}: expected {_PATIENCE_MIN_S:g}..{_PATIENCE_MAX_S:g} seconds, got "
            f"{text!r}"
        )
    return found


class ObjectStore:
    """A folder of a store. Opening it sends no request."""

    def __init__(self, address: StoreAddress) -> None:
        """Prepare to read below an address.

        Raises:
            OptionError: obstore is not installed, or its settings in the environment are wrong.
        """
        require_engine()
        self.address = address
        self._patience_s = patience_s()
        try:
            self._store = _open(address, self._patience_s)
        except Exception as error:  # of obstore's own kinds, and ValueError
            raise OptionError(f"{address}: {_first_line(error)}") from None

    def list_tars(self) -> list[ObjectFacts]:
        """List the shards of the folder, by name, with their sizes and versions.

        Raises:
            StoreError: the store cannot be read.
            DatasetError: over HTTP, an address that lists none.
        """
        import obstore

        if self.address.scheme == "s3":
            listed = self._ask("", lambda: obstore.list_with_delimiter(self._store))
            names = [_facts(meta["path"], meta) for meta in listed["objects"]]
            return sorted(facts for facts in names if _is_tar(facts.name))
        return self.look_at(self._listed_names())

    def _listed_names(self) -> list[str]:
        if not self.address.listing:
            raise DatasetError(
                f"{self.address}: HTTP lists no folder. Give the address of a text file there that "
                "names the shards, one in a line, as .../shards.txt; or put augd.index beside them"
            )
        content = self.read_whole(self.address.listing)
        if content is None:
            raise DatasetError(f"{self.address} is not there. Check the address.")
        lines = bytes(content).decode("utf-8", "replace").splitlines()
        return sorted({line.strip() for line in lines} - {""})

    def look_at(self, names: list[str]) -> list[ObjectFacts]:
        """Find these shards, several at once. Their names are untrusted.

        Raises:
            DatasetError: a name is none of a shard in the folder itself.
            StoreError: a shard is missing, or the store cannot be read.
        """
        from concurrent.futures import ThreadPoolExecutor

        for name in names:
            if not _is_tar(name):
                raise DatasetError(
                    f"{self.address}: expected names of .tar files in its own folder (one in a "
                    f"line of a list, or those of an index), got {name[:80]!r}"
                )
        with ThreadPoolExecutor(16, "store-look") as pool:
            return list(pool.map(self._head, names))

    def _head(self, name: str) -> ObjectFacts:
        import obstore

        return _facts(name, self._ask(name, lambda: obstore.head(self._store, name)))

    def version(self, name: str) -> int:
        """Return the version of an object, 0 if there is none. Raises StoreError."""
        import obstore

        def head() -> int:
            try:
                return _facts(name, obstore.head(self._store, name)).version or 1
            except FileNotFoundError:
                return 0

        return self._ask(name, head)

    def read(self, facts: ObjectFacts, first: int, size: int) -> Contents:
        """Read a range of an object in the version that was found. The result is `size` bytes.

        Raises:
            StoreError: it cannot be read within the store's patience, or has another version by
                now.
        """
        import obstore

        options: dict[str, Any] = {"range": (first, first + size)}
        if facts.etag and not facts.etag.startswith("W/"):  # weak ones match nothing
            options["if_match"] = facts.etag

        def get() -> Contents:
            result = obstore.get(self._store, facts.name, options=options)  # type: ignore[arg-type]
            found = _facts(facts.name, result.meta)
            if found[1:] != facts[1:]:
                raise self._replaced(
                    facts.name, f"expected {_say_version(facts)}, got {_say_version(found)}"
                )
            content = memoryview(result.bytes())
            if len(content) != size:
                raise StoreError(
                    f"{self._where(facts.name)} was cut off: expected {size} bytes from byte "
                    f"{first} on, got {len(content)}. Ask its operator."
                )
            return content

        return self._ask(facts.name, get)

    def read_whole(self, name: str) -> Contents | None:
        """Read a whole object; None if there is none of this name. Raises StoreError."""
        import obstore

        def get() -> Contents | None:
            try:
                return memoryview(obstore.get(self._store, name).bytes())
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return None

        return self._ask(name, get)

    def put(self, name: str, content: bytes) -> None:
        """Write an object. Raises StoreError."""
        import obstore

        self._ask(name, lambda: obstore.put(self._store, name, content))

    def _ask(self, name: str, ask: Callable[[], T]) -> T:
        """Send a request until it is answered. A body that broke off for good is requested
        again."""
        began = time.monotonic()
        while True:
            try:
                return ask()
            except StoreError:
                raise
            except Exception as error:  # FileNotFoundError, or of obstore's own kinds
                passed_s = time.monotonic() - began
                is_broken = "kind: Interrupted" in str(error) or "IncompleteBody" in str(error)
                if not is_broken or passed_s > self._patience_s:
                    raise self._explained(name, error, passed_s) from None
            time.sleep(random.uniform(*_BACKOFF_S) / 10)

    def _where(self, name: str) -> str:
        shown = name if name.isprintable() else ascii(name)[1:-1]
        return f"{self.address.folder}/{shown}" if name else self.address.folder

    def _replaced(self, name: str, how: str) -> StoreError:
        return StoreError(
            f"{self._where(name)} was replaced since it was indexed: {how}. Start the daemon "
            "again: it indexes what is there now, which is another dataset unless the samples "
            "are the same."
        )

    def _explained(self, name: str, error: Exception, passed_s: float) -> StoreError:
        """Describe an error, without anything that the store quoted."""
        text = str(error)
        where, after = self._where(name), f"after {passed_s:.0f} s of trying"
        found = _STATUS.search(text)
        status, code = int(found[1]) if found else 0, _code(error)
        kind = type(error).__name__
        said = f"{code or 'HTTP'} {status}" if status else kind
        if any(part in text for part in _ROLES):
            what = (
                "no credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY where "
                "this is started, or AWS_SKIP_SIGNATURE=true for a public bucket"
            )
        elif kind == "PreconditionError":
            return self._replaced(name, "its ETag is another one")
        elif code == "NoSuchBucket":
            what = (
                f"there is no bucket {self.address.host!r} at {_endpoint()}; check its name, and "
                "AWS_ENDPOINT_URL"
            )
        elif code in _CREDENTIALS or kind in ("PermissionDeniedError", "UnauthenticatedError"):
            what = (
                f"the store refuses these credentials ({said}): they are wrong, expired, or not "
                "for this. Renew them (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, "
                "AWS_SESSION_TOKEN) and start the daemon again"
            )
            if self.address.scheme != "s3":
                what = f"the server refuses it ({said}); augd gives no credentials over HTTP"
        elif isinstance(error, FileNotFoundError) or status == 404:
            what = "it is not there (404): it was removed, or the address is wrong"
        elif status in (429, 503):
            what = (
                f"the store limits the rate ({said}), {after}. Use fewer producers, or have the "
                "rate of the bucket raised"
            )
        elif status == 416:
            what = f"it is shorter than it was ({said}): it was replaced since it was indexed"
        elif "NotSupported" in kind or "NotPartial" in text:
            what = "the server gives no ranges of a file (206), and whole shards are not read"
        elif status:
            what = f"the store fails ({said}), {after}. Ask its operator"
        else:
            reason = _KIND.search(text)
            what = {
                "Timeout": f"it did not answer in time, {after}. Check the network and the store",
                "Connect": (
                    f"{_endpoint() if self.address.scheme == 's3' else self.address.host} cannot "
                    f"be reached, {after}. Check the address and the network"
                ),
                "Interrupted": f"its answers broke off, {after}. Check the network and the store",
            }.get(reason[1] if reason else "", f"{_first_line(error)}, {after}")
        return StoreError(f"{where}: {what}.")


def version_of(etag: str | None, changed: datetime) -> tuple[str, int]:
    """Return an object's ETag, and a number that changes with it, or else with its time."""
    key = etag or ("" if changed == _NO_TIME else changed.isoformat())
    if not key:
        return "", 0
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return etag or "", int.from_bytes(digest, "big") >> 1


def facts_of(shard: ShardFacts) -> ObjectFacts:
    """Return an index's shard as the object that it is."""
    return ObjectFacts(os.fsdecode(shard.path), shard.size_bytes, shard.etag, shard.mtime_ns)


def _facts(name: str, meta: Any) -> ObjectFacts:
    return ObjectFacts(name, meta["size"], *version_of(meta["e_tag"], meta["last_modified"]))


def _say_version(facts: ObjectFacts) -> str:
    version = f"ETag {facts.etag}" if facts.etag else "an older time"
    return f"{facts.size_bytes} bytes of {version}"


def _is_tar(name: str) -> bool:
    return name.lower().endswith(".tar") and "/" not in name and not name.startswith(".")


def _open(address: StoreAddress, patience: float) -> Any:
    from obstore.store import HTTPStore, S3Store

    first, last = (timedelta(seconds=pause) for pause in _BACKOFF_S)
    retry: RetryConfig = {
        "max_retries": 1_000_000,  # only the time is limited
        "retry_timeout": timedelta(seconds=patience),
        "backoff": {"init_backoff": first, "max_backoff": last, "base": 2},
    }
    client: ClientConfig = {
        "connect_timeout": timedelta(seconds=min(_CONNECT_S, patience / 2)),
        "timeout": timedelta(seconds=min(_REQUEST_S, patience / 2)),
        "allow_http": address.scheme == "http" or _endpoint().startswith("http://"),
    }
    if address.scheme == "s3":
        prefix = address.path or None
        return S3Store(address.host, prefix=prefix, client_options=client, retry_config=retry)
    return HTTPStore(address.folder, client_options=client, retry_config=retry)


def _endpoint() -> str:
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    found = next((found for name in names if (found := os.environ.get(name))), "Amazon S3")
    scheme, between, rest = found.partition("://")
    return scheme + between + rest.rpartition("@")[2]  # it is shown: without a password


def store_key(address: StoreAddress) -> str:
    """Name a folder of a store uniquely: equal names of buckets at two endpoints are two."""
    return f"{_endpoint()} {address.folder}" if address.scheme == "s3" else address.folder


def _code(error: Exception) -> str:
    found = _CODE.search(str(error))
    return found[1] if found else ""


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]

"""An own source for augd: photos that lie in a table of a SQLite file.

augd serve photos=plugin:examples.own_sources:SqlitePhotos?photos.db

The table is `photos (id INTEGER PRIMARY KEY, name TEXT, class TEXT, jpeg BLOB)`, and its rows are
not changed while it is served.
"""

import sqlite3


class SqlitePhotos:
    """The rows of the table, in the order of their ids."""

    def __init__(self, path: str) -> None:
        """Open the file for reading; called before the producer gives up its rights."""
        # immutable: SQLite takes no lock, which a producer without the right to write can't.
        self._base = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
        self._ids = [row[0] for row in self._base.execute("SELECT id FROM photos ORDER BY id")]

    def __len__(self) -> int:
        """Return how many photos there are."""
        return len(self._ids)

    def read(self, i: int) -> tuple[bytes, str]:
        """Return the file of photo `i`, from 0 on, and its class."""
        query = "SELECT jpeg, class FROM photos WHERE id = ?"
        jpeg, label = self._base.execute(query, (self._ids[i],)).fetchone()
        return jpeg, label

    def labels(self) -> list[str]:
        """Return the classes of all photos; without it, each photo is read once at the start."""
        return [row[0] for row in self._base.execute("SELECT class FROM photos ORDER BY id")]

    def names(self) -> list[str]:
        """Return what messages and the hash behind `val_fraction` go by."""
        return [row[0] for row in self._base.execute("SELECT name FROM photos ORDER BY id")]

    def digest(self) -> str:
        """Say which state of the photos this is: here by number, sizes and the last id."""
        query = "SELECT count(*), sum(length(jpeg)), max(id) FROM photos"
        return str(self._base.execute(query).fetchone())

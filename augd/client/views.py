"""Views of a batch by name, and what is said where there are none of a name.

Used by batches of arrays and of tensors. Loads no NumPy.
"""

from __future__ import annotations

from typing import NoReturn, TypeVar

Rows = TypeVar("Rows")


class Views(dict[str, Rows]):
    """The arrays or tensors of a batch by the name of their views, in the recipe's order."""

    def __missing__(self, name: object) -> NoReturn:
        """Name the views that there are."""
        if self:
            known = ", ".join(map(repr, self))
            raise KeyError(f"expected one of the recipe's views {known}, got {name!r}")
        raise KeyError(
            f"expected a recipe with a list of views, got {name!r} of one without: its rows are "
            "batch.images"
        )

    def instead_of_images(self) -> str:
        """Return why a batch of these has no `images`, and where its rows are."""
        rows = " and ".join(f"batch.views[{name!r}]" for name in self)
        return f"images: the recipe has a list of views: its rows are {rows}"

"""The options that say how data sets are opened, alike for every command that opens one.

What they say is put into this process's environment (`dataset/access.py`,
`pixels/headers/size_limits.py`), from
where everything that it starts knows it: no command passes them on by hand.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

LinksTo = Annotated[
    list[str] | None,
    typer.Option(metavar="DIR", help="Links may leave the set to below DIR; repeat for more."),
]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Links may leave the set to anywhere.")
]
Root = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="A manifest's paths lie below DIR [below its own folder]."),
]
MaxPixels = Annotated[
    int | None, typer.Option(metavar="N", help="The largest picture that is read [64,000,000].")
]

_OPTIONS: dict[str, tuple[Any, Any]] = {
    "links_to": (LinksTo, None),
    "follow_links": (FollowLinks, False),
    "root": (Root, None),
    "max_pixels": (MaxPixels, None),
}


def opens_data(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options; it is run when they hold."""

    @functools.wraps(command)
    def opening(
        *args: Any,
        links_to: list[str] | None = None,
        follow_links: bool = False,
        root: str | None = None,
        max_pixels: int | None = None,
        **others: Any,
    ) -> None:
        open_by(links_to or (), follow_links, root, max_pixels)
        command(*args, **others)

    signature = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in _OPTIONS.items()
    ]
    parameters = [*signature.parameters.values(), *added]
    opening.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    opening.__annotations__ = {one.name: one.annotation for one in parameters}
    return opening


def open_by(
    links_to: list[str] | tuple[str, ...] = (),
    follow_links: bool = False,
    root: str | None = None,
    max_pixels: int | None = None,
) -> None:
    """Have this process open data sets so.

    Raises:
        OptionError: a folder is none, or the number is out of range.
    """
    if links_to or follow_links or root is not None:
        from augd.dataset.access import give_access

        give_access(links_to, follow_links=follow_links, root=root)
    if max_pixels is not None:
        from augd.pixels.headers.size_limits import allow_pixels

        allow_pixels(max_pixels)

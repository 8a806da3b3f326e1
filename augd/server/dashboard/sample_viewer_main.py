"""The program that decodes files for the dashboard: `...sample_viewer_main LINK_FD PID
[PLUGIN...]`.

PID is the dashboard's. The program is confined as a producer is, since it decodes files that have
crashed some. It answers one request after another until the dashboard ends. A fault of a file is an
answer, too.
"""

from __future__ import annotations

import io
import os
import socket
import sys
from typing import Any

from msgspec import msgpack
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from augd.dataset.index_file import IndexFile
from augd.dataset.index_format import read_index_header
from augd.dataset.stores.address import is_address
from augd.diagnostics.drawn_text import as_plain
from augd.diagnostics.sample_renderer import SampleRenderer
from augd.errors import AugdError
from augd.pixels.headers.formats import HEAD_BYTES, PACKAGES, recognise
from augd.pixels.headers.read_header import BadImage
from augd.pixels.headers.size_limits import max_data_bytes
from augd.plan.recipe.op_catalogue import BUILT_IN, Catalogue
from augd.plan.recipe.phases import parse_stream_recipe
from augd.plugins.ops import load
from augd.process.parent_death import die_with
from augd.process.sandbox import confine, limit
from augd.server.dashboard.sample_viewer import Answer, ViewRequest
from augd.transport import unix_link

_SIDE_PX = 240
_BYTES_MAX = 60_000  # of an encoded image, which is sent in one message
# An image that is shown as it is needs a recipe, but uses nothing of it.
_PLAIN = parse_stream_recipe({"ops": [{"op": "center_crop", "size": 8}]})


class OpenSamples:
    """Opens samples of the datasets that it was given."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._indexes: dict[str, IndexFile] = {}
        self._renderers: dict[bytes, SampleRenderer] = {}  # the last one

    def add(self, name: str, fd: int, dims_fd: int) -> None:
        """Take over a dataset's index."""
        header, _ = read_index_header(fd)
        size_bytes = os.fstat(fd).st_size
        self._indexes[name] = IndexFile(fd, dims_fd, header, size_bytes, None, True)

    def answer(self, asked: ViewRequest) -> Answer:
        """Show a file, or describe what was drawn for it."""
        if is_address(self._indexes[asked.dataset].root):
            return Answer(
                why="it lies in an object store, which the confined process that shows files "
                "cannot reach; `augd explain` shows it"
            )
        try:
            return self._image(asked) if asked.recipe is None else self._words(asked)
        except UnidentifiedImageError:
            return Answer(why="nothing in the file can be read as an image")
        except (AugdError, BadImage, OSError, ValueError, SyntaxError, MemoryError) as error:
            return Answer(why=str(error) or type(error).__name__)
        except Image.DecompressionBombError as error:
            return Answer(why=str(error))

    def _image(self, asked: ViewRequest) -> Answer:
        content = self._renderer(asked).read_file(asked.sample)
        if recognise(content[:HEAD_BYTES]) in PACKAGES:  # which Pillow by itself does not read
            whole = self._renderer(asked).read(asked.sample).decode_all()
            return Answer(jpeg=_shrink(Image.fromarray(whole)))
        with Image.open(io.BytesIO(content)) as file:
            file.draft("RGB", (_SIDE_PX, _SIDE_PX))
            image = ImageOps.exif_transpose(file.convert("RGB"))
        return Answer(jpeg=_shrink(image))

    def _words(self, asked: ViewRequest) -> Answer:
        renderer = self._renderer(asked)
        header = renderer.read(asked.sample).header
        plain = as_plain(renderer.drawn(asked.sample, asked.epoch, header))
        views = plain.get("views", [plain])
        names = (f"{view['name']}: " if "name" in view else "" for view in views)
        words = (name + view["words"] for name, view in zip(names, views, strict=True))
        return Answer(words=tuple(words))

    def _renderer(self, asked: ViewRequest) -> SampleRenderer:
        """Return the renderer of a dataset, recipe and seed: the last one, or a new one."""
        key = msgpack.encode((asked.dataset, asked.recipe, asked.seed))
        renderer = self._renderers.get(key)
        if renderer is None:
            recipe = _PLAIN
            if asked.recipe is not None:
                recipe = parse_stream_recipe(asked.recipe, self._catalogue)
            index = self._indexes[asked.dataset]
            renderer = SampleRenderer(index, recipe, asked.seed, is_confined=True)
            for last in self._renderers.values():
                last.close()
            self._renderers = {key: renderer}
        return renderer


def _shrink(image: Image.Image) -> bytes:
    """Encode an image small enough for one message."""
    image.thumbnail((_SIDE_PX, _SIDE_PX))
    out = io.BytesIO()
    for quality in (80, 50, 20):
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        if out.tell() <= _BYTES_MAX:
            break
    return out.getvalue()


def main(link_fd: int, parent_pid: int, *plugins: str) -> None:
    """Answer requests until the dashboard ends."""
    die_with(parent_pid)
    limit(max_data_bytes())
    ImageFile.LOAD_TRUNCATED_IMAGES = True  # the readable part of a broken image is shown
    Image.init()
    dashboard = socket.socket(fileno=link_fd)
    try:
        samples = OpenSamples(load(plugins) if plugins else BUILT_IN)
        for _ in range(msgpack.decode(_receive(dashboard)[0], type=int)):
            name, fds = _receive(dashboard)
            samples.add(msgpack.decode(name, type=str), fds[0], fds[1])
        confine()
        while True:
            asked = msgpack.decode(_receive(dashboard)[0], type=ViewRequest)
            unix_link.send(dashboard, msgpack.encode(samples.answer(asked)))
    except EOFError:
        pass


def _receive(dashboard: socket.socket) -> tuple[Any, list[int]]:
    received = unix_link.receive(dashboard, wait=True)
    assert received is not None
    return received


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])

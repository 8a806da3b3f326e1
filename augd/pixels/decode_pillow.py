"""Decodes what Pillow and its plug-ins read: BMP, TIFF, GIF, AVIF, HEIC and JPEG XL.

Called by `decode.py` with a file whose size its header has told. A decoder that finds another size
is stopped before it makes a pixel. Images are decoded whole, with their alpha, if any. Each decoder
has one thread, as producers are the parallelism.

Decoders of HEIC and JPEG XL are packages of their own (extra `formats`). Without them a file is a
bad sample that says so. Libraries are loaded with the first file that needs them.

Invariants: raises only `BadImage`, whatever the bytes are and the libraries raise.
"""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from augd.errors import install_extra
from augd.pixels.headers.formats import NAMES, PACKAGES
from augd.pixels.headers.header import BadImage, Header

_RAW_16: Final = ("I;16", "I;16L", "I;16B")
_WITH_ALPHA: Final = ("RGBA", "LA", "PA", "La", "RGBa")
_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_FORMATS: Final = {"bmp": "BMP", "tiff": "TIFF", "gif": "GIF", "avif": "AVIF"}


def decode_other(data: bytes | bytearray, header: Header) -> NDArray[np.uint8]:
    """Decode a whole image: RGB or RGBA, uint8 (height, width, 3 or 4).

    Raises:
        BadImage: it does not decode, or its decoder is not installed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _decode(data, header)
        except BadImage:
            raise
        except ImportError:
            package = PACKAGES.get(header.format, "pillow")
            raise BadImage(
                f"{NAMES[header.format]} images take the package {package}, which is not "
                f"installed: {install_extra('formats')}"
            ) from None
        except Exception as error:  # libraries raise errors of any kind over untrusted bytes
            raise _gave_up(header, error) from None
        except BaseException as error:
            # A panic of Rust becomes a BaseException.
            if type(error).__name__ != "PanicException":
                raise
            raise _gave_up(header, error) from None


def _gave_up(header: Header, error: BaseException) -> BadImage:
    text = " ".join(str(error).split())[:200] or type(error).__name__
    return BadImage(f"the {NAMES[header.format]} decoder gave up: {ascii(text)[1:-1]}")


def _decode(data: bytes | bytearray, header: Header) -> NDArray[np.uint8]:
    if header.format == "heic":
        return _decode_heic(data, header)
    if header.format == "jxl":
        return _decode_jxl(data, header)
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None  # the header's limit was checked before
    if header.format == "avif":
        try:
            from PIL import AvifImagePlugin
        except ImportError:
            raise _no_avif() from None
        if not AvifImagePlugin.SUPPORTED:
            raise _no_avif()
        AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    with Image.open(BytesIO(data), formats=(_FORMATS[header.format],)) as opened:
        _check_size(opened.size, header)
        tags: Any = getattr(opened, "tag_v2", {})
        is_inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        opened.load()
        return _as_pixels(opened, is_inverted)


def _no_avif() -> BadImage:
    return BadImage(
        "AVIF images take Pillow 11.3 or newer with libavif: pip install 'pillow>=11.3'"
    )


def _as_pixels(image: Any, is_inverted: bool = False) -> NDArray[np.uint8]:
    """Return Pillow's image as RGB or RGBA. Of 16 bits the upper byte counts."""
    if image.mode in _RAW_16:
        upper = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat((255 - upper if is_inverted else upper)[..., None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise BadImage(f"expected whole numbers of 16 bits at most, got Pillow's {image.mode!r}")
    has_alpha = image.mode in _WITH_ALPHA or "transparency" in image.info
    return np.asarray(image.convert("RGBA" if has_alpha else "RGB"))


def _decode_heic(data: bytes | bytearray, header: Header) -> NDArray[np.uint8]:
    import pillow_heif

    options = pillow_heif.options
    options.DECODE_THREADS = 1
    options.THUMBNAILS = options.DEPTH_IMAGES = options.AUX_IMAGES = False
    found = pillow_heif.open_heif(BytesIO(data), convert_hdr_to_8bit=True)
    one = found[found.primary_index]
    _check_size(one.size, header)
    image = one.to_pillow()
    _check_size(image.size, header)
    return _as_pixels(image)


def _decode_jxl(data: bytes | bytearray, header: Header) -> NDArray[np.uint8]:
    import pillow_jxl
    from PIL import Image

    is_jpeg, facts, content, *_ = pillow_jxl.Decoder(num_threads=0)(bytes(data))
    if is_jpeg:
        with Image.open(BytesIO(content), formats=("JPEG",)) as opened:
            _check_size(opened.size, header)
            return _as_pixels(opened)
    size = facts.width, facts.height
    _check_size(size, header)
    if facts.mode not in ("RGB", "RGBA", "L", "LA", "I;16"):
        raise BadImage(f"JPEG XL: expected samples of 16 bits at most, got {facts.mode!r}")
    return _as_pixels(Image.frombytes(facts.mode, size, content))


def _check_size(found: tuple[int, int], header: Header) -> None:
    if found != (header.width, header.height):
        raise BadImage(
            f"decoded to another size: expected {header.width}x{header.height}, got "
            f"{found[0]}x{found[1]}"
        )

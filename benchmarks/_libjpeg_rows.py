"""Build `_libjpeg_rows.c` with the system's C compiler and libjpeg-turbo, and call it.

Only the benchmark needs it: the kernels that augd ships decode with a decoder of their own.
"""

from __future__ import annotations

import ctypes
import shlex
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

_BUILD_S = 60


def load_skip_rows() -> Callable[[bytes | bytearray, int], None]:
    """Return a function of a JPEG and a number of rows: decode the entropy coding of these.

    It raises ValueError where libjpeg fails. The build takes less than a second.
    """
    source = Path(__file__).with_suffix(".c")
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "libjpeg_rows.so")
        subprocess.run(
            [*compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ljpeg"],
            check=True,
            timeout=_BUILD_S,
        )
        native = ctypes.CDLL(str(library)).skip_rows
    native.argtypes = [ctypes.c_void_p, ctypes.c_ulong, ctypes.c_uint]
    native.restype = ctypes.c_int

    def skip_rows(data: bytes | bytearray, rows: int) -> None:
        is_writable = isinstance(data, bytearray)
        content = (ctypes.c_char * len(data)).from_buffer(data) if is_writable else data
        if not native(content, len(data), rows):
            raise ValueError("libjpeg does not decode a photo. Remove it from the folder.")

    return skip_rows

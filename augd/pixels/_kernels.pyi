"""What `kernels/module.c` exports. All pixels are RGB uint8 (h, w, 3); no argument has a name."""

from mmap import mmap

import numpy as np
from numpy.typing import NDArray

from augd.pixels.decode import Pixels

VERSION: int
LIBJPEG_TURBO: str
HAS_OWN_ENTROPY_DECODER: int

class DecodeError(Exception): ...

def decode_jpeg(
    data: bytes | bytearray,
    out: Pixels,
    width: int,
    height: int,
    x: int,
    y: int,
    scale: int,
    /,
) -> None: ...
def render_jpeg(
    data: bytes | bytearray,
    out: Pixels,
    width: int,
    height: int,
    x: int,
    y: int,
    scale: int,
    region_width: int,
    region_height: int,
    scaled_width: int,
    scaled_height: int,
    window_x: int,
    window_y: int,
    mirror: bool,
    linear: bool,
    /,
) -> None: ...
def transcode_jpeg(
    data: bytes | bytearray, out: bytearray, width: int, height: int, interval: int, /
) -> int: ...
def measure_segments(
    lengths: NDArray[np.uint16],
    columns: int,
    rows: int,
    left: int,
    top: int,
    num_columns: int,
    num_rows: int,
    /,
) -> tuple[int, int, int]: ...
def read_cut(
    lengths: NDArray[np.uint16],
    columns: int,
    rows: int,
    left: int,
    top: int,
    num_columns: int,
    num_rows: int,
    fd: int,
    head_size: int,
    offset: int,
    size: int,
    file_size: int,
    file_mtime_ns: int,
    /,
) -> bytearray | None: ...
def cut_segments(
    lengths: NDArray[np.uint16],
    body: bytes | bytearray,
    out: bytearray,
    columns: int,
    rows: int,
    left: int,
    top: int,
    num_columns: int,
    num_rows: int,
    start: int,
    /,
) -> bool: ...
def decode_cut(
    data: bytearray,
    out: Pixels,
    lengths: NDArray[np.uint16],
    columns: int,
    rows: int,
    left: int,
    top: int,
    num_columns: int,
    num_rows: int,
    head_size: int,
    width: int,
    height: int,
    mcu_width: int,
    mcu_height: int,
    interval: int,
    x: int,
    y: int,
    scale: int,
    /,
) -> None: ...
def render_cut(
    data: bytearray,
    out: Pixels,
    lengths: NDArray[np.uint16],
    columns: int,
    rows: int,
    left: int,
    top: int,
    num_columns: int,
    num_rows: int,
    head_size: int,
    width: int,
    height: int,
    mcu_width: int,
    mcu_height: int,
    interval: int,
    x: int,
    y: int,
    scale: int,
    region_width: int,
    region_height: int,
    scaled_width: int,
    scaled_height: int,
    window_x: int,
    window_y: int,
    mirror: bool,
    linear: bool,
    /,
) -> None: ...
def resize(
    source: Pixels,
    out: Pixels,
    scaled_width: int,
    scaled_height: int,
    window_x: int,
    window_y: int,
    mirror: bool,
    linear: bool,
    /,
) -> None: ...
def resize_rows(
    cache: mmap | bytes,
    out: Pixels,
    offset: NDArray[np.int64],
    size: NDArray[np.int32],
    crop: NDArray[np.int32],
    scaled: NDArray[np.int32],
    window: NDArray[np.int32],
    mirror: NDArray[np.bool_],
    linear: bool,
    /,
) -> None: ...
def halve(source: Pixels, out: Pixels, /) -> None: ...
def warp(
    source: Pixels,
    out: Pixels,
    xx: float,
    xy: float,
    yx: float,
    yy: float,
    x: float,
    y: float,
    whole_x: float,
    whole_y: float,
    fill: int,
    red: int,
    green: int,
    blue: int,
    grid: NDArray[np.float32] | None,
    lens: float,
    field: NDArray[np.float32] | None,
    scale: float,
    low_x: int,
    end_x: int,
    low_y: int,
    end_y: int,
    /,
) -> None: ...
def refill(
    out: Pixels,
    xx: float,
    xy: float,
    yx: float,
    yy: float,
    x: float,
    y: float,
    whole_x: float,
    whole_y: float,
    fill: int,
    red: int,
    green: int,
    blue: int,
    grid: NDArray[np.float32] | None,
    lens: float,
    field: NDArray[np.float32] | None,
    scale: float,
    low_x: int,
    end_x: int,
    low_y: int,
    end_y: int,
    /,
) -> None: ...
def apply_colour(
    row: Pixels,
    rr: float,
    rg: float,
    rb: float,
    r: float,
    gr: float,
    gg: float,
    gb: float,
    g: float,
    br: float,
    bg: float,
    bb: float,
    b: float,
    /,
    *pivot: float,
) -> bool: ...
def sums(row: Pixels, /) -> tuple[int, int, int]: ...
def use_simd(wanted: bool, /) -> bool: ...

"""The sides of the comparison, and the environments that they run in.

What differs between the sides and cannot be made equal is named here, and stands in the table:
the filter that shrinks the crop, and whether the photos were rewritten beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from benchmarks._law import MIRROR_P, SCALE, SIDE_PX

ANTIALIASED = "antialiased"
TWO_TAPS = "2-tap"
AREA = "area"
AS_THEY_ARE = "as they are"


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment for one peer.

    Attributes:
        requirements: for pip, in one call; lower bounds are what the side is written for.
        modules: that must be importable afterwards.
        debian: packages that pip cannot bring; of each tuple one is enough.
    """

    requirements: tuple[str, ...]
    modules: tuple[str, ...]
    debian: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Side:
    """One row of the table.

    Attributes:
        module: in `benchmarks.sides.peers`.
        resize: the filter that shrinks the crop.
        files: what it reads: the photos as they are, or what was made of them before.
        environment: a key of `ENVIRONMENTS`; none is the checkout's own.
        options: for the module, beside photos, batch_size and workers.
        ffcv_form: has the photos written into FFCV's own file first.
        images: false for work that yields no images.
    """

    name: str
    module: str
    resize: str
    files: str = AS_THEY_ARE
    environment: str = ""
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    ffcv_form: str = ""
    images: bool = True


def recipe(filter: str) -> dict[str, Any]:
    """Write out the law that all sides follow, for augd."""
    ops = [
        {"op": "random_resized_crop", "size": SIDE_PX, "scale": list(SCALE)},
        {"op": "mirror", "p": MIRROR_P},
    ]
    return {"ops": ops, "filter": filter}


ENVIRONMENTS: dict[str, Environment] = {
    "tensorflow": Environment(("tensorflow-cpu>=2.19,<3",), ("tensorflow",)),
    "dali": Environment(("nvidia-dali-cuda120>=1.50,<3", "numpy>=2"), ("nvidia.dali",)),
    "spdl": Environment(
        ("spdl>=0.8,<1", "numpy>=2"),
        ("spdl.io",),
        (
            ("libavdevice59", "libavdevice58", "libavdevice60", "libavdevice61"),
            ("libavfilter8", "libavfilter7", "libavfilter9", "libavfilter10"),
        ),
    ),
    "grain": Environment(
        ("grain>=0.2.10,<1", "opencv-python-headless>=4.11", "numpy>=2"), ("grain", "cv2")
    ),
    # For `benchmarks.augmentation`; like the other sides there it is driven by torch's DataLoader.
    "albumentations": Environment(
        ("albumentations>=2.0.8,<3", "numpy>=2", "pillow", "torch>=2.4"),
        ("albumentations", "torch.utils.data"),
    ),
    # For `benchmarks.recipes`: its own transforms, driven by torch's DataLoader.
    "timm": Environment(
        ("timm>=1.0", "torch>=2.4", "torchvision>=0.19", "pillow", "numpy>=2"),
        ("timm.data", "torchvision"),
    ),
    # It is compiled here; its numba knows no newer NumPy, and Pillow is needed at run time.
    "ffcv": Environment(
        ("ffcv>=1.0.2,<2", "numpy>=2,<2.3", "pillow", "torch>=2.4", "torchvision>=0.19"),
        ("ffcv.loader",),
        (("g++",), ("pkg-config", "pkgconf"), ("libturbojpeg0-dev",), ("libopencv-dev",)),
    ),
}

AUGD_LINEAR = "augd linear"
AUGD_ANTIALIAS = "augd antialias"
PIL = "DataLoader, PIL"
IO = "DataLoader, torchvision.io"
OPENCV = "DataLoader, OpenCV"
TF_DATA = "tf.data"
DALI_ANTIALIAS = "DALI, antialiased"
DALI_LINEAR = "DALI"
FFCV_JPG = "FFCV, JPEG as it is"
FFCV_RAW = "FFCV, raw"

SIDES: tuple[Side, ...] = (
    Side(AUGD_LINEAR, "augd_stream", TWO_TAPS, options={"recipe": recipe("linear")}),
    Side(AUGD_ANTIALIAS, "augd_stream", ANTIALIASED, options={"recipe": recipe("antialias")}),
    Side(PIL, "torch_loader", ANTIALIASED, options={"rows": "pil"}),
    Side(IO, "torch_loader", ANTIALIASED, options={"rows": "io"}),
    Side(OPENCV, "torch_loader", TWO_TAPS, options={"rows": "opencv"}),
    Side(TF_DATA, "tf_data", TWO_TAPS, environment="tensorflow"),
    Side(DALI_LINEAR, "dali", TWO_TAPS, environment="dali", options={"antialias": False}),
    Side(DALI_ANTIALIAS, "dali", ANTIALIASED, environment="dali", options={"antialias": True}),
    Side(FFCV_JPG, "ffcv_loader", AREA, "packed", "ffcv", ffcv_form="jpg"),
    Side("FFCV, up to 400 px", "ffcv_loader", AREA, "shrunk to 400 px", "ffcv", ffcv_form="small"),
    Side(FFCV_RAW, "ffcv_loader", AREA, "decoded", "ffcv", ffcv_form="raw"),
    Side("SPDL", "spdl_pipeline", "antialiased (swscale)", environment="spdl"),
    Side("Grain, OpenCV", "grain_loader", TWO_TAPS, environment="grain"),
)
SIDES_BY_NAME = {side.name: side for side in SIDES}
# Whose JPEGs are the photos' own, byte by byte.
SAME_JPEGS = (AS_THEY_ARE, "packed")

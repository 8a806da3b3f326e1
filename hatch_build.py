"""Build the native kernels with the package, where a C compiler and libjpeg-turbo are there.

Where they are not, the package is built without them and works the same, about half as fast;
`pip -v` shows the reason. `AUGD_BUILD_KERNELS=require` makes their lack an error, as for wheels
that are published; `AUGD_BUILD_KERNELS=off` leaves them out. One build serves all versions of
Python from 3.11 on: the limited API.

`AUGD_LIBJPEG=DIR` links libjpeg-turbo statically, from DIR/include and DIR/lib*/libjpeg.a.
"""

from __future__ import annotations

import os
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FOLDER = Path("augd", "pixels")
_NAME = "_kernels"
_OLDEST = "cp311"
# Contraction to fused operations would make the weights of a resize depend on the processor.
_FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-fvisibility=hidden"]


class KernelsHook(BuildHookInterface[Any]):
    """Compile `augd/pixels/kernels/*.c` into `augd/pixels/_kernels.abi3.so`."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, and tell the wheel that it holds something native. Called by hatchling."""
        mode = os.environ.get("AUGD_BUILD_KERNELS", "auto")
        if mode not in ("auto", "require", "off"):
            raise ValueError(f"AUGD_BUILD_KERNELS: expected auto, require or off, got {mode!r}")
        built = None
        if mode != "off":
            try:
                built = self._compile()
            except Exception as error:
                if mode == "require":
                    raise
                self.app.display_warning(f"augd is built without its native kernels: {error}")
        if built is None:
            self.clean([])  # an older build would be used, and be taken for this one
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"{_OLDEST}-abi3-{platform}"
        build_data["artifacts"].append(built.as_posix())

    def clean(self, versions: list[str]) -> None:
        """Remove what was built. Called by `hatch clean`."""
        for built in Path(self.root, _FOLDER).glob(f"{_NAME}*.so"):
            built.unlink()

    def _compile(self) -> Path:
        from setuptools import Distribution, Extension

        folder = Path(self.root, _FOLDER)
        extension = Extension(
            f"augd.pixels.{_NAME}",
            sources=[str(source) for source in sorted((folder / "kernels").glob("*.c"))],
            extra_compile_args=_FLAGS,
            # A static libjpeg is this module's alone, whatever else the process loads.
            extra_link_args=["-Wl,--exclude-libs,ALL"],
            py_limited_api=True,
            **_libjpeg(),
        )
        with tempfile.TemporaryDirectory() as scratch:
            distribution = Distribution({"name": "augd", "ext_modules": [extension]})
            command: Any = distribution.get_command_obj("build_ext")
            command.build_lib = scratch
            command.build_temp = scratch
            command.ensure_finalized()
            command.run()
            (made,) = Path(scratch, _FOLDER).glob(f"{_NAME}*.so")
            target = folder / made.name
            # Renamed into place: a producer that runs has the old one mapped.
            fresh = target.with_suffix(".new")
            fresh.write_bytes(made.read_bytes())
            fresh.chmod(0o755)
            fresh.replace(target)
        return _FOLDER / target.name


def _libjpeg() -> dict[str, list[str]]:
    """Say how libjpeg-turbo is linked: the system's, or a static one that the wheel carries."""
    static = os.environ.get("AUGD_LIBJPEG")
    if not static:
        return {"libraries": ["jpeg", "m"]}
    found = sorted(Path(static).glob("lib*/libjpeg.a"))
    if not found:
        raise FileNotFoundError(f"AUGD_LIBJPEG: expected lib*/libjpeg.a in {static}, got none")
    return {
        "include_dirs": [str(Path(static, "include"))],
        "extra_objects": [str(found[0])],
        "libraries": ["m"],
    }

"""A program that `augd doctor` starts to load the kernels: a damaged file ends only this program.

Prints JSON: what is wrong with the kernels, their name, and two facts.
"""

from __future__ import annotations

import json

from augd.pixels.library_versions import describe_environment
from augd.pixels.native import kernels, trouble

if __name__ == "__main__":
    facts = (
        ()
        if kernels is None
        else (
            bool(kernels.HAS_OWN_ENTROPY_DECODER),
            kernels.use_simd(True),
        )
    )
    print(json.dumps([trouble, describe_environment()["kernels"], *facts]))

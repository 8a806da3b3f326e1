"""`augd doctor` has this program load the kernels: a damaged file ends it, and nothing else.

Prints what they are as JSON: what is wrong with them, their version (0 for none), and three facts.
"""

from __future__ import annotations

import json

from augd.pixels.native import kernels, trouble

if __name__ == "__main__":
    facts = (
        ()
        if kernels is None
        else (
            kernels.LIBJPEG_TURBO,
            bool(kernels.HAS_OWN_ENTROPY_DECODER),
            kernels.use_simd(True),
        )
    )
    print(json.dumps([trouble, 0 if kernels is None else kernels.VERSION, *facts]))

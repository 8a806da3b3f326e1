"""augd.torch: the batches of an augd stream as torch tensors on a device.

    import augd
    import augd.torch

    with augd.serve("photos/") as daemon:
        stream = augd.torch.connect(daemon.address, recipe="imagenet", split="train")
        for batch in stream.epoch(0):
            batch.images    # float32 (B, 3, H, W) on the device, normalised there
        for images, labels in stream: ...                          # the next epoch, in pairs
        for images, labels in augd.torch.as_dataloader(stream): ...  # for Lightning and friends
        with augd.torch.splits(daemon.address) as splits:  # training and validation
            augd.torch.fit(network, splits, epochs=10)     # as `trainer fit` does

Runs in the training process, on top of `augd.Stream`. `data.stream` is the stream of tensors,
`data.host_feed` and `data.cuda_feed` make the tensors, and `data.copy_schedule` decides when a copy
starts and when a slot goes back. Nothing here decodes or augments, and only exported names of augd
are used.

This folder is the package `augd.torch`. `trainer` is another name of it, unless a file of the
user's takes that name. So the modules here import one another relatively.
"""

if __name__ == "trainer":
    from .alias import become_torch

    become_torch()

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .data.constants import IMAGENET_MEAN, IMAGENET_STD
    from .data.dataloader import as_dataloader
    from .data.host_feed import Batch
    from .data.splits import Splits, splits
    from .data.stream import Stream, connect
    from .training.fit import FitResult, fit
else:
    if sys.modules.get("torch") is None and find_spec("torch") is None:
        from .alias import explain_missing_torch

        raise explain_missing_torch()

    # The module of each name. torch takes seconds to load: --help and a wrong option don't wait.
    _HOMES = {
        "IMAGENET_MEAN": "data.constants",
        "IMAGENET_STD": "data.constants",
        "Batch": "data.host_feed",
        "FitResult": "training.fit",
        "Splits": "data.splits",
        "Stream": "data.stream",
        "as_dataloader": "data.dataloader",
        "connect": "data.stream",
        "fit": "training.fit",
        "splits": "data.splits",
    }
    _PACKAGES = ("data", "evaluation", "models", "training")

    def __getattr__(name: str) -> object:
        """Import a name when it is first used, and torch with it."""
        if name in _PACKAGES:
            return import_module(f"{__name__}.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *_HOMES})


__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Batch",
    "FitResult",
    "Splits",
    "Stream",
    "as_dataloader",
    "connect",
    "fit",
    "splits",
]

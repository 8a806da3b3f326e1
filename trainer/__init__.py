"""trainer: the batches of an augd stream as torch tensors on a device.

    import augd, trainer

    with augd.serve("photos/") as daemon:
        stream = trainer.connect(daemon.address, recipe="imagenet", batch_size=256)
        for batch in stream.epoch(0):
            batch.images    # float32 (B, 3, H, W) on the device, normalised there
        for images, labels in stream: ...                       # the next epoch, in pairs
        for images, labels in trainer.as_dataloader(stream): ...  # for Lightning and friends

The last step of a batch's way: `client` is the stream, `device` and `cuda` make the
tensors, `handover` decides when a copy starts and when a slot goes back. Nothing here decodes or
augments, and nothing of augd is used that augd doesn't export.
"""

try:
    import torch as torch
except ModuleNotFoundError:
    raise ModuleNotFoundError(
        "trainer needs torch, which is not installed here: pip install 'augd[trainer]'. "
        "augd.connect gives the same batches as NumPy arrays, without it.",
        name="torch",
    ) from None

from trainer.client import Stream, connect
from trainer.device import IMAGENET_MEAN, IMAGENET_STD, Batch
from trainer.loader import as_dataloader

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Batch", "Stream", "as_dataloader", "connect"]

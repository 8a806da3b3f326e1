"""augd: image batches from a daemon of CPU producers, streamed to a training process.

    import augd

    with augd.serve("photos/") as daemon:
        stream = augd.connect(daemon.address, recipe="imagenet", split="train")
        for batch in stream.epoch(0):
            batch.images    # uint8 (B, H, W, 3), RGB, a view into shared memory

Names are loaded when they are first used, so that the daemon, which imports this package
too, never loads NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from augd.errors import (
    AddressInUse,
    AugdError,
    BatchesHeld,
    ConnectError,
    DatasetError,
    Forbidden,
    OptionError,
    OverLimit,
    PluginFailed,
    ProducersUnhealthy,
    ProtocolError,
    ReceiptMismatch,
    RecipeError,
    SampleFailed,
    SpecMismatch,
    StoreError,
    StreamClosed,
    UntrustedAddress,
)
from augd.version import __version__

if TYPE_CHECKING:
    from augd.client.batch import Batch
    from augd.client.connect import connect
    from augd.client.connect_options import ConnectOptions
    from augd.client.recipe_file import preset_recipes, recipe_toml
    from augd.client.serve import ServedDaemon, serve
    from augd.client.stream import Stream
    from augd.client.views import Views
    from augd.plan.mix_draws import Mixing
    from augd.plan.ops.plugin import Plugin, SampleInfo
    from augd.plan.random.op_random import Dice, OpRandom

_LAZY = {
    "Batch": "augd.client.batch",
    "ConnectOptions": "augd.client.connect_options",
    "Mixing": "augd.plan.mix_draws",
    "Dice": "augd.plan.random.op_random",
    "OpRandom": "augd.plan.random.op_random",
    "Plugin": "augd.plan.ops.plugin",
    "SampleInfo": "augd.plan.ops.plugin",
    "Stream": "augd.client.stream",
    "Views": "augd.client.views",
    "connect": "augd.client.connect",
    "preset_recipes": "augd.client.recipe_file",
    "recipe_toml": "augd.client.recipe_file",
    "ServedDaemon": "augd.client.serve",
    "serve": "augd.client.serve",
}

__all__ = [
    "AddressInUse",
    "AugdError",
    "Batch",
    "BatchesHeld",
    "ConnectError",
    "ConnectOptions",
    "DatasetError",
    "Dice",
    "Forbidden",
    "Mixing",
    "OpRandom",
    "OptionError",
    "OverLimit",
    "Plugin",
    "PluginFailed",
    "ProducersUnhealthy",
    "ProtocolError",
    "ReceiptMismatch",
    "RecipeError",
    "SampleFailed",
    "SampleInfo",
    "ServedDaemon",
    "SpecMismatch",
    "StoreError",
    "Stream",
    "StreamClosed",
    "UntrustedAddress",
    "Views",
    "__version__",
    "connect",
    "preset_recipes",
    "recipe_toml",
    "serve",
]


def __getattr__(name: str) -> object:
    if name in _LAZY:
        import importlib

        value = getattr(importlib.import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'augd' has no attribute {name!r}")

"""The torch side of augd: the package `trainer`, by a name that no file of the user's can hide.

    import augd
    import augd.torch

    stream = augd.torch.connect(recipe="imagenet", batch_size=256)

A user's own trainer.py, beside a script or imported already, takes the name `trainer`. So the
modules of the folder trainer/, beside that of augd, are loaded under this name. `import trainer`,
where it finds that folder, is given the same modules.

Beside the way of a batch: augd itself never imports this, and so never torch.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer import (
        IMAGENET_MEAN,
        IMAGENET_STD,
        Batch,
        Stream,
        as_dataloader,
        connect,
    )

    __all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Batch", "Stream", "as_dataloader", "connect"]
else:
    import os
    import sys
    from importlib.machinery import SourceFileLoader

    from augd.process.interpreter import is_beginning, leave_working_directory

    if is_beginning(__name__):  # `python -m` put the working directory before torch's place
        leave_working_directory(is_module=True)
    _package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    __path__ = [os.path.join(os.path.dirname(_package), "trainer")]
    _first = os.path.join(__path__[0], "__init__.py")
    if not os.path.isfile(_first):
        raise ModuleNotFoundError(
            f"augd.torch: expected the torch side in {__path__[0]}, got no such package; install "
            "augd anew",
            name=__name__,
        )
    SourceFileLoader(__name__, _first).exec_module(sys.modules[__name__])

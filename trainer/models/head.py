"""The head of a network: a linear layer with optional dropout and DropConnect.

The last layer with weights. A `Head` is an `nn.Linear` with the same names in its state, so
checkpoints of torchvision's networks fit. Both regularisers act in training only. With neither it
computes what `nn.Linear` computes, bit for bit.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

import augd

from .stages import Stages


class Head(nn.Linear):
    """Features (B, D) to a number per class (B, K), before the softmax.

    dropout: share of the features that is zeroed. The rest is scaled up to keep the mean.
    drop_connect: share of the weights that is zeroed, drawn once per batch, the rest scaled up.
        In evaluation all weights count: the mean of what training saw, where the paper samples
        from a normal distribution of the same mean.

    Source: Srivastava et al. 2014; Wan et al. 2013, section 3.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        dropout: float = 0.0,
        drop_connect: float = 0.0,
        *,
        bias: bool = True,
    ) -> None:
        """Draw the weights as `nn.Linear` does."""
        super().__init__(num_features, num_classes, bias)
        self.dropout, self.drop_connect = dropout, drop_connect

    def forward(self, features: Tensor) -> Tensor:
        features = functional.dropout(features, self.dropout, self.training)
        weight = functional.dropout(self.weight, self.drop_connect, self.training)
        return functional.linear(features, weight, self.bias)

    def extra_repr(self) -> str:
        """Add what `nn.Linear` doesn't know."""
        return f"{super().extra_repr()}, dropout={self.dropout}, drop_connect={self.drop_connect}"


def regularise_head(
    network: nn.Module, stages: Stages, dropout: float | None, drop_connect: float
) -> None:
    """Make the last linear layer a `Head`; its weights stay the same tensors' values.

    A dropout that the network has right before its head moves into it. It then belongs to the head
    when everything below is frozen; `dropout` replaces its share.

    Raises:
        OptionError: an option is given that this head, a convolution, say, cannot have.
    """
    layer = network.get_submodule(stages.head)
    # A class derived from it may compute something else.
    if len(stages.heads) > 1 or type(layer) not in (nn.Linear, Head):
        if dropout is None and not drop_connect:
            return
        option = "--drop-connect" if drop_connect else "--dropout"
        raise augd.OptionError(
            f"{option}: needs a linear classifier, and that of {type(network).__name__} is "
            f"{' and '.join(stages.heads)} ({type(layer).__name__}); leave {option} out, or choose "
            "another network"
        )
    assert isinstance(layer, nn.Linear)
    if isinstance(layer, Head):
        share = layer.dropout
    elif stages.before_head is not None:
        before = network.get_submodule(stages.before_head)
        assert isinstance(before, nn.Dropout)
        share, before.p = before.p, 0.0
    else:
        share = 0.0
    with torch.device("meta"):  # no generator is asked for weights that are replaced at once
        head = Head(layer.in_features, layer.out_features, bias=layer.bias is not None)
    head.weight, head.bias = layer.weight, layer.bias
    head.dropout = share if dropout is None else dropout
    head.drop_connect = drop_connect
    _put(network, stages.head, head)


def resize_head(network: nn.Module, stages: Stages, num_classes: int) -> None:
    """Give the head another number of outputs, if it has another; its weights are new then.

    Raises:
        OptionError: the head is no single layer.
    """
    if all(_has_outputs(network.get_submodule(name), num_classes) for name in stages.heads):
        return
    layer = network.get_submodule(stages.head)
    new: nn.Module
    if len(stages.heads) == 1 and isinstance(layer, nn.Linear):
        new = nn.Linear(layer.in_features, num_classes, layer.bias is not None)
    elif len(stages.heads) == 1 and isinstance(layer, nn.Conv2d) and layer.groups == 1:
        new = nn.Conv2d(
            layer.in_channels,
            num_classes,
            (layer.kernel_size[0], layer.kernel_size[1]),
            (layer.stride[0], layer.stride[1]),
            layer.padding if isinstance(layer.padding, str) else tuple(layer.padding),  # type: ignore[arg-type]
            bias=layer.bias is not None,
        )
    else:
        raise augd.OptionError(
            f"--arch: the head {stages.head} of {type(network).__name__} is "
            f"{type(layer).__name__}, which has no number of classes to change: let the callable "
            "take num_classes"
        )
    _put(network, stages.head, new)


def _has_outputs(head: nn.Module, num_classes: int) -> bool:
    layers = [one for one in head.modules() if isinstance(one, nn.Linear | nn.Conv2d)]
    return bool(layers) and layers[-1].weight.shape[0] == num_classes


def renew_head(network: nn.Module, stages: Stages) -> None:
    """Draw new weights for every layer of the head, as `nn.Linear` and its like do.

    Some networks draw larger ones: EfficientNet's first logits have a deviation of 15, and the
    first steps are spent on taking that back.
    """
    for head in stages.heads:
        for module in network.get_submodule(head).modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    above, _, last = name.rpartition(".")
    setattr(network.get_submodule(above), last, module)

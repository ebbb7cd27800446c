"""Linear layers whose weights lie as the processor multiplies them.

oneDNN, which multiplies bfloat16 on a CPU, brings a weight into blocks of its own at
every product. For the few rows that decoding feeds this takes much of the time, so
`pack` does it once. A product stays the same up to the last bit.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .hardware import cpu_multiplies_bfloat16


class Packed(nn.Module):
    """As the `nn.Linear` it is made from, for inference; `weight` is in blocks."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        blocks = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        self.weight = nn.Parameter(blocks, requires_grad=False)
        self.bias = linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        found: Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, self.weight, self.bias, "none", [], ""
        )
        return found

    def _save_to_state_dict(self, destination: Any, prefix: str, keep: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep)
        destination[prefix + "weight"] = plain(self.weight)  # what a file can hold


def pack(model: nn.Module) -> None:
    """Every linear layer of `model` in bfloat16 on a CPU becomes `Packed`.

    A weight that is also the embedding's is then held twice. Nothing happens where
    the processor does not multiply bfloat16, or where this torch cannot pack.
    """
    known = hasattr(torch.ops.mkldnn, "_linear_pointwise")
    if not (known and cpu_multiplies_bfloat16()):
        return
    for parent in model.modules():  # a layer that is packed is let go at once
        for name, part in [*parent.named_children()]:
            if (
                type(part) is nn.Linear
                and part.weight.dtype == torch.bfloat16
                and part.weight.device.type == "cpu"
            ):
                setattr(parent, name, Packed(part))


def plain(weight: Tensor) -> Tensor:
    """A weight row by row again, (out, in)."""
    return weight.to_dense() if weight.is_mkldnn else weight

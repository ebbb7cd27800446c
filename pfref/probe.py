"""A reward model that reads the policy's own hidden states while it writes, so that the
reward costs no second pass.

A probe is a linear map of the state after some layer at the last token of a step
(Alain and Bengio 2016; of right solutions, Zhang et al. 2025, arXiv 2504.05419). The
policy has read the whole partial solution when it writes that token, so the probe's
score is of the prefix, as any process reward model's is.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .errors import UserError
from .judgement import Judgement, StepScorer
from .loading import PROBES, probe_file

if TYPE_CHECKING:
    from .lm import LanguageModel


class Listener:
    """What a model's layers say of the tokens of its last pass.

    layers  numbers of blocks, from 1 to L: the residual stream after each is kept
    """

    def __init__(self, model: nn.Module, layers: Sequence[int]) -> None:
        blocks = blocks_of(model)
        if wrong := [k for k in layers if not 1 <= k <= len(blocks)]:
            raise UserError(
                f"the language model has layers 1 to {len(blocks)}, and no layer "
                f"{wrong[0]}"
            )
        self.layers, self.said = tuple(layers), [torch.empty(0) for _ in layers]
        self.hooks = [
            blocks[number - 1].register_forward_hook(self.keep(place))
            for place, number in enumerate(layers)
        ]

    def keep(self, place: int) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            self.said[place] = output[0] if isinstance(output, tuple) else output

        return hook

    def states(self) -> Tensor:
        """(B, layers * h) at each row's last token. Raises UserError after `close`."""
        if not self.said:
            raise UserError(
                "another probe listens to the language model now; run one after the "
                "other"
            )
        return torch.cat([said[:, -1] for said in self.said], -1)

    def close(self) -> None:
        self.said = []
        for hook in self.hooks:
            hook.remove()


def blocks_of(model: nn.Module) -> nn.ModuleList:
    """The model's layers."""
    count = model.config.get_text_config().num_hidden_layers  # type: ignore
    found = (
        m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count
    )
    return next(found)


class Probe(StepScorer):
    """A linear reward model on the states of `lm`: z = w . x / rms(x) + b.

    weight  (h,) and bias (), in float32
    layers  of which the state is read, one
    """

    def __init__(
        self, lm: "LanguageModel", layer: int, weight: Tensor, bias: Tensor
    ) -> None:
        width = lm.model.config.get_text_config().hidden_size
        if weight.shape != (width,) or bias.shape != ():
            raise UserError(
                f"the probe reads states of {weight.shape[-1]} numbers, and the "
                f"language model's have {width}; it belongs to another model"
            )
        if not (weight.isfinite().all() and bias.isfinite()):
            raise UserError("the probe's weights are not finite; train it again")
        lm.listen((layer,))
        self.lm, self.device = lm, lm.device
        self.layers: tuple[int, ...] = (layer,)
        self.weight = weight.float().to(lm.device)
        self.bias = bias.float().to(lm.device)
        self.body = lm.model  # whose memory it shares

    @classmethod
    def load(cls, name: str | Path, lm: "LanguageModel") -> "Probe":
        """A shipped one (qwen2.5-coder-0.5b-probe), or a file that `write_probe` wrote.

        Raises UserError if there is none, or if it belongs to another language model.
        """
        file = probe_file(name)
        if file is None:
            raise UserError(
                f"there is no probe {name}; give a .safetensors file, or one of "
                + ", ".join(sorted(path.stem for path in PROBES.glob("*")))
            )
        try:
            with safe_open(str(file), "pt") as held:
                told = json.loads((held.metadata() or {})["probe"])
                weight, bias = held.get_tensor("weight"), held.get_tensor("bias")
            layer = int(told["layer"])
        except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
            raise UserError(
                f"{file} is not a probe: {error}; give a file that pfref.study.probing "
                "wrote, or a reward model's folder"
            ) from error
        return cls(lm, layer, weight, bias)

    def start(self, problems: Sequence[str], copies: int) -> Judgement:
        if self.lm.listener is None or self.lm.listener.layers != self.layers:
            self.lm.listen(self.layers)  # another probe was at work
        return super().start(problems, copies)

    def scores(
        self,
        judgement: Judgement,
        rows: list[int],
        steps: Sequence[Sequence[str]],
        states: Tensor | None,
    ) -> Tensor:
        """From their states, of all rows (R, h)."""
        if states is None:
            raise ValueError("a probe reads the states of a language model")
        own = states[torch.tensor(rows, device=self.device)]
        found = log_odds(own, self.weight, self.bias)
        if not found.isfinite().all():
            raise UserError(
                "the language model's states are not finite; load it in float32 or "
                "bfloat16, and check its weights"
            )
        return found


def write_probe(
    file: str | Path, weight: Tensor, bias: Tensor, *, layer: int, **told: Any
) -> None:
    """What `Probe.load` reads, with whatever else is told of it."""
    tensors = {"weight": weight.contiguous(), "bias": bias.contiguous()}
    save_file(tensors, str(file), {"probe": json.dumps(dict(layer=layer, **told))})


def log_odds(states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """z of states (..., h), in float32."""
    return unit(states) @ weight + bias


def unit(states: Tensor) -> Tensor:
    """States in float32, of root mean square 1."""
    return nn.functional.rms_norm(states.float(), states.shape[-1:], eps=1e-6)

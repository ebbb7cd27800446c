"""CUDA graphs without a GPU: what an action does to tensors is recorded once, and each
replay does it again, to the same tensors.

As with CUDA, what the host does in an action is done when it is recorded, and its
operations are not: until the first replay all tensors are as they were, and what was
allocated in the record holds nothing. A tensor that the record has made is filled anew
by every replay, whoever holds it.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Action = Callable[[], None]
WAITS = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select"}


def place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def whole(tensor: Tensor) -> Tensor:
    """All that its storage holds, as bytes."""
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())


class Tape(TorchDispatchMode):
    """The operations of an action, with the tensors that they read and wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Any]]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}  # what was overwritten
        self.made: dict[int, Tensor] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func._schema.name.split("::")[1] in WAITS:
            raise RuntimeError("operation not permitted when stream is capturing")
        given = {place(t) for t in tensors((args, kwargs))}
        arguments = func._schema.arguments
        named = dict(zip([a.name for a in arguments], args, strict=False)) | kwargs
        for argument in arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.keep(named.get(argument.name))
        out = func(*args, **kwargs)
        for tensor in tensors(out):
            if place(tensor) not in given:
                self.made[place(tensor)] = whole(tensor)
        self.operations.append((func, args, kwargs, tensors(out)))
        return out

    def keep(self, tensor: Any) -> None:
        if isinstance(tensor, Tensor) and place(tensor) not in self.made:
            held = whole(tensor)
            self.before.setdefault(place(tensor), (held, held.clone()))

    def rewind(self) -> None:
        for held, old in self.before.values():
            held.copy_(old)
        for held in self.made.values():
            held.fill_(255)  # no number, in any precision

    def replay(self) -> None:
        for func, args, kwargs, outputs in self.operations:
            again = tensors(func(*args, **kwargs))
            for old, new in zip(outputs, again, strict=True):
                if place(old) != place(new):
                    old.copy_(new)


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Recorder:
    """As `graphs.recorder` of a GPU; counts records and replays."""

    def __init__(self) -> None:
        self.records = self.replays = 0

    @torch.inference_mode()
    def __call__(self, action: Action) -> Action:
        with Tape() as tape:
            action()
        tape.rewind()
        self.records += 1

        def replay() -> None:
            self.replays += 1
            tape.replay()

        return replay

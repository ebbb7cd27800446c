"""A GPU that is not there: tensors that say "gpu", hold CPU data and refuse what CUDA
refuses.

    with PretendedGPU() as gpu:
        gpu.move(model)
        ...
    gpu.waits     how often the host waited for the device, by operation
    gpu.launches  operations that a GPU would have been given, by name

CUDA refuses an operation between a tensor of its own and one on the host, unless that
is a number. It makes the host wait where a value must come back before the program goes
on: to read it, to count what a mask selects, to copy it to the host or from there.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("gpu")
DEVICE = torch.device("gpu:0")
READS = {"_local_scalar_dense", "equal", "is_nonzero"}
COUNTS = {"nonzero", "_unique2", "unique_dim", "masked_select", "unique_consecutive"}
EMPTY = {"empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided"}


class OnGPU(torch.Tensor):
    """A tensor on the pretended GPU; `inner` is what it holds."""

    inner: torch.Tensor  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "OnGPU":
        found = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=DEVICE,
        )
        found.inner = inner
        return found

    def tolist(self) -> Any:
        CURRENT[-1].waits["tolist"] += 1
        return self.inner.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            "can't convert a tensor on the GPU to numpy; copy it to the host"
        )

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"OnGPU({self.inner})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return CURRENT[-1].run(func, args, kwargs or {})


CURRENT: list["PretendedGPU"] = []


def is_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == "gpu"


def mapped(change: Callable[[Any], Any], x: Any) -> Any:
    """`change` applied to all that lists, tuples and dictionaries hold."""
    if isinstance(x, (list, tuple)):
        return type(x)([mapped(change, y) for y in x])
    if isinstance(x, dict):
        return {key: mapped(change, y) for key, y in x.items()}
    return change(x)


def tensors_in(x: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    mapped(lambda y: found.append(y) if isinstance(y, torch.Tensor) else None, x)
    return found


def inner(x: Any) -> Any:
    return x.inner if isinstance(x, OnGPU) else x


def outer(x: Any) -> Any:
    return OnGPU(x) if isinstance(x, torch.Tensor) else x


def to_host(x: Any) -> Any:
    return torch.device("cpu") if isinstance(x, torch.device) else x


PLACES = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)


class Lists(TorchFunctionMode):
    """A list goes to the host first, and from there to the GPU: in `torch.tensor`, and
    where it says which rows of a tensor there are meant.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.tensor and is_gpu(kwargs.get("device")):
            CURRENT[-1].waits["to the GPU"] += 1
            return OnGPU(func(*args, **kwargs | {"device": "cpu"}))
        if func in PLACES and isinstance(args[0], OnGPU) and isinstance(args[1], list):
            CURRENT[-1].waits["to the GPU"] += 1
            args = (args[0], OnGPU(torch.tensor(args[1])), *args[2:])
        return func(*args, **kwargs)


class PretendedGPU(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.lists = Lists()
        self.waits: Counter[str] = Counter()
        self.launches: Counter[str] = Counter()

    def __enter__(self) -> "PretendedGPU":
        CURRENT.append(self)
        self.lists.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.lists.__exit__(*error)
        CURRENT.pop()

    def move(self, module: nn.Module) -> nn.Module:
        """The module's parameters and buffers go to the GPU."""
        for part in module.modules():
            for name, tensor in part._parameters.items():
                if tensor is not None:
                    part._parameters[name] = nn.Parameter(OnGPU(tensor.data), False)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = OnGPU(buffer)
        return module

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        name = func._schema.name.split("::")[1]
        tensors = tensors_in((args, kwargs))
        ours = [x for x in tensors if isinstance(x, OnGPU)]
        on_gpu = bool(ours)
        named = [x for x in (*args, *kwargs.values()) if isinstance(x, torch.device)]
        if named or (name == "to" and len(tensors) > 1):  # or the device of a tensor
            on_gpu = is_gpu(named[0] if named else tensors[1].device)
            args, kwargs = mapped(to_host, (args, kwargs))
        if name == "copy_":
            on_gpu = isinstance(args[0], OnGPU)
            self.crossing(isinstance(args[1], OnGPU), on_gpu)
        elif name in ("_to_copy", "to"):
            self.crossing(isinstance(args[0], OnGPU), on_gpu)
        elif name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            self.indexing(name, args)
        elif ours:
            self.refuse_mixture(name, tensors)
        if ours and name in READS | COUNTS:
            self.waits[name] += 1
        out = func(*mapped(inner, args), **mapped(inner, kwargs))
        if not on_gpu or name in READS:
            return out
        if name.endswith("_") and not name.endswith("__"):
            self.launches[name] += 1
            return args[0]
        held = {
            x.inner.untyped_storage()._cdata for x in ours
        }  # a view launches nothing
        made = tensors_in(out)
        if name not in EMPTY and any(
            x.untyped_storage()._cdata not in held for x in made
        ):
            self.launches[name] += 1
        if "out" in kwargs:
            return kwargs["out"]
        return mapped(outer, out)

    def crossing(self, from_gpu: bool, to_gpu: bool) -> None:
        if from_gpu != to_gpu:
            self.waits["to the host" if from_gpu else "to the GPU"] += 1

    def indexing(self, name: str, args: tuple[Any, ...]) -> None:
        whole = isinstance(args[0], OnGPU)
        for index in args[1]:
            if index is None:
                continue
            if isinstance(index, OnGPU) and not whole:
                raise RuntimeError("a tensor on the host is indexed by one on the GPU")
            if whole and index.dtype in (torch.bool, torch.uint8):
                self.waits["index by a mask"] += 1
            elif whole and not isinstance(index, OnGPU):
                self.waits["index from the host"] += 1
        if name != "index" and whole != isinstance(args[2], OnGPU) and args[2].dim():
            raise RuntimeError(f"{name}: values and tensor are on different devices")

    def refuse_mixture(self, name: str, tensors: list[torch.Tensor]) -> None:
        for tensor in tensors:
            if not isinstance(tensor, OnGPU) and tensor.dim() > 0:
                raise RuntimeError(
                    f"{name}: all tensors must be on one device, and one of shape "
                    f"{tuple(tensor.shape)} is on the host"
                )

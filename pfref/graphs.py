"""Repeat what is launched on a GPU without the host: CUDA graphs."""

import contextlib
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from .decoding import Decoder

Action = Callable[[], None]
Recorder = Callable[[Action], Action]  # an action, recorded but not yet done


class Repeater:
    """Lets a decoder take many tokens. With a recorder the host speaks for one of them,
    and the device repeats it: to launch a token's kernels takes a host longer than a
    GPU takes to do them.

    A decoder's tokens until its first look go without: they warm up, and make the
    cache's buffers, which a record would make anew, and empty, at every replay.
    """

    def __init__(self, record: Recorder | None = None) -> None:
        self.record = record
        self.last: Action | None = None

    def __call__(self, decoder: "Decoder", count: int) -> None:
        action: Action = decoder.token
        if self.record and count > 1 and decoder.fed_slots:
            action = self.recorded(decoder, count)
        for _ in range(count):
            action()

    def recorded(self, decoder: "Decoder", count: int) -> Action:
        """A token of `decoder` to replay so often; of a model whose forward pass asks
        the device something, and so cannot be recorded, the token itself.
        """
        cache = decoder.cache
        held, calls = list(cache.held), cache.calls
        cache.enter(range(decoder.width), count)  # nothing may grow in a record
        decoder.ahead = count
        try:
            assert self.record is not None
            # The last record lives until the next is there: they share their memory.
            self.last = self.record(decoder.token)
            cache.advance(count - 1)
            return self.last
        except RuntimeError as error:
            cache.held, cache.calls = held, calls
            # Memory may suffice another time, or without: a record takes some more.
            if not isinstance(error, torch.OutOfMemoryError):
                warnings.warn(f"tokens are not recorded: {error}", stacklevel=2)
                self.record = self.last = None
            return decoder.token
        finally:
            decoder.ahead = 1


def recorder(device: torch.device) -> Recorder:
    """A recorder whose records share their memory, one after the other.

    An action works on the same tensors at every replay; it neither waits for the device
    nor sends it anything. What the host does in it is done once, when it is recorded.
    """
    stream = torch.cuda.Stream(device)
    pool = torch.cuda.graph_pool_handle()

    def record(action: Action) -> Action:
        graph = torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            graph.capture_begin(pool=pool, capture_error_mode="thread_local")
            try:
                action()
            except BaseException:
                with contextlib.suppress(RuntimeError):  # the first error tells more
                    graph.capture_end()
                raise
            graph.capture_end()
        torch.cuda.current_stream(device).wait_stream(stream)
        return graph.replay

    return record

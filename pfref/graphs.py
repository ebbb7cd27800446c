"""Record what is launched on a GPU, and replay it without the host: CUDA graphs."""

from collections.abc import Callable

import torch

Action = Callable[[], None]
Recorder = Callable[[Action], Action]  # an action, recorded but not yet done


def recorder(device: torch.device) -> Recorder:
    """A recorder whose recordings share their memory, one after the other.

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
            finally:
                graph.capture_end()
        torch.cuda.current_stream(device).wait_stream(stream)
        return graph.replay

    return record

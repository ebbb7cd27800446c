"""Servers that others have written, on this machine's loopback, each started by a
command: PFREF_VLLM and PFREF_LLAMA name those of vLLM and llama.cpp.
"""

import os
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def llama(file: Path, port: int, *options: str) -> list[str]:
    """llama.cpp's server for a .gguf file; the cache in float32, as the exact tests
    need it.
    """
    start = [*shlex.split(os.environ["PFREF_LLAMA"]), "--model", str(file)]
    exact = ["--cache-type-k", "f32", "--cache-type-v", "f32", "--flash-attn", "off"]
    return [*start, "--port", str(port), "--no-webui", *exact, *options]


@contextmanager
def running(
    command: Sequence[str], port: int, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The server's process, once it answers; until the block ends."""
    quiet = dict(os.environ, HF_HUB_OFFLINE="1", VLLM_CPU_KVCACHE_SPACE="1")
    with open(log, "w") as out:
        process = subprocess.Popen(list(command), stdout=out, stderr=out, env=quiet)
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()[-2000:]
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.5)
        yield process
    finally:
        process.terminate()
        process.wait(20)

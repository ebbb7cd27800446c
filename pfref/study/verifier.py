"""math-verify behind limits of time and memory that hold in threads and processes.

Its own time limit is an alarm signal, which only a main thread can set, and which does
not interrupt a long operation on large integers. So it runs in a worker process.
"""

import atexit
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

SECONDS = 5.0  # of the processor for a pair; by the clock, PATIENCE times as many
PATIENCE = 4
START = 120.0  # seconds to import math-verify, on a busy machine
MEMORY = 1 << 30  # bytes of a worker's address space
WORKER = Path(__file__).with_name("verify_worker.py")


class Verifier:
    """A worker process, started when it is first needed and again when it ended.

    seconds  of the processor that a pair of answers may take; the worker sees to it.
             A worker that does not answer within `patience` times as many by the clock
             is killed.
    command  runs a worker, for tests
    """

    def __init__(
        self,
        seconds: float = SECONDS,
        patience: float = PATIENCE,
        command: Sequence[str] | None = None,
    ) -> None:
        self.limit = seconds * patience
        self.command = command or (
            *(sys.executable, "-P", str(WORKER)),
            *(str(seconds), str(MEMORY)),
        )
        self.reset()

    def reset(self) -> None:
        """As new, without a word to a worker that another process has started."""
        self.lock = threading.Lock()
        self.worker: subprocess.Popen[bytes] | None = None
        self.served = 0

    def verify(self, gold: str, answer: str) -> bool | None:
        """Are they equal? None if no verdict was reached within the limits.

        A worker that ended although its time was not up may have suffered from what it
        did before: then a fresh one is asked once more, so that no verdict depends on
        others.
        """
        request = json.dumps([gold, answer]).encode() + b"\n"
        with self.lock:
            fresh = self.served == 0
            verdict, in_time = self.ask(request)
            if verdict is None and in_time and not fresh:
                verdict, _ = self.ask(request)
            return verdict

    def ask(self, request: bytes) -> tuple[bool | None, bool]:
        """The worker's verdict, and whether its time was not up."""
        try:
            if self.worker is None and not self.start():
                return None, True
            reply, in_time = self.reply(request, self.limit)
            verdict = {b"true": True, b"false": False}.get(reply.strip())
            if verdict is None or not in_time:
                in_time = in_time and not (reply == b"" and self.used_up())
                self.stop()
            else:
                self.served += 1
            return verdict, in_time
        except (OSError, RuntimeError):  # no memory or no thread left to have it done
            self.stop()
            return None, True
        except BaseException:  # such as Ctrl-C: a reply may still be on its way
            self.stop()
            raise

    def start(self) -> bool:
        environment = {**os.environ, "PYTHONHASHSEED": "0"}  # sympy's order of terms
        try:
            self.worker = subprocess.Popen(
                self.command,
                bufsize=0,  # nothing is left to flush in a process that was forked
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        except OSError:
            return False
        self.served = 0
        if self.reply(b"", START)[0].strip() == b"ready":
            return True
        self.stop()
        return False

    def reply(self, request: bytes, limit: float) -> tuple[bytes, bool]:
        """The worker's next line, empty if it ended, and whether it was in time."""
        worker = self.worker
        assert worker and worker.stdin and worker.stdout
        late = threading.Event()

        def end() -> None:
            late.set()
            worker.kill()

        timer = threading.Timer(limit, end)
        timer.daemon = True
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError):
                while request:
                    request = request[worker.stdin.write(request) :]
            return worker.stdout.readline(), not late.is_set()
        finally:
            timer.cancel()
            timer.join()

    def used_up(self) -> bool:
        """Has a worker that ended used up its own time?"""
        assert self.worker
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.worker.wait(5) == -getattr(signal, "SIGPROF", 0)
        return False

    def stop(self) -> None:
        """End the worker, if there is one."""
        worker, self.worker, self.served = self.worker, None, 0
        if worker is None:
            return
        worker.kill()
        worker.wait()
        self.let_go(worker)

    def let_go(self, worker: "subprocess.Popen[bytes]") -> None:
        for pipe in (worker.stdin, worker.stdout):
            if pipe:
                pipe.close()

    def after_fork(self) -> None:
        """In a forked process: leave the parent's worker alone, and start an own one.

        Our copies of its pipes are closed, or it would outlive the parent.
        """
        worker = self.worker
        self.reset()
        if worker is not None:
            self.let_go(worker)
            worker.returncode = (
                0  # it is not our child, so there is nothing to wait for
            )


def installed() -> bool:
    return importlib.util.find_spec("math_verify") is not None


verifier = Verifier()
atexit.register(verifier.stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=verifier.after_fork)

"""One process's file of records, to which lines are only ever added: locked against a
second process, mended after a crash, and flushed to the disk.
"""

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..errors import UserError

try:
    import fcntl
except ImportError:  # Windows: nothing keeps two runs apart there
    fcntl = None  # type: ignore[assignment]


class Journal:
    """Appends whole lines to `folder`/records.jsonl, or records-K.jsonl for part K of
    a shared study. Parts may run at once, each once; the whole runs alone.

    Raises UserError if another run holds the file, or it cannot be written.
    """

    def __init__(self, folder: Path, part: int | None = None) -> None:
        name = "records.jsonl" if part is None else f"records-{part}.jsonl"
        self.file = folder / name
        self.handles: list[int] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.lock(folder, os.O_RDONLY, shared=part is not None)
            self.handle = self.lock(self.file, os.O_RDWR | os.O_CREAT)
            self.size = self.mend()
        except OSError as error:
            self.close()
            raise UserError(f"cannot write {self.file}: {error.strerror}") from error
        except UserError:
            self.close()
            raise

    def lock(self, place: Path, flags: int, shared: bool = False) -> int:
        handle = os.open(place, flags, 0o666)
        self.handles.append(handle)
        if fcntl is not None:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            try:
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"another run is writing to {place}; wait for it, give another "
                    "--out, or share the work with --part 1/2 and --part 2/2"
                ) from error
        return handle

    def mend(self) -> int:
        """Cut a last line that was not written to its end; return the file's size."""
        size = whole = os.fstat(self.handle).st_size
        while whole > 0:
            begin = max(0, whole - (1 << 16))
            block = os.pread(self.handle, whole - begin, begin)
            if (at := block.rfind(b"\n")) >= 0:
                whole = begin + at + 1
                break
            whole = begin
        if whole < size:
            os.ftruncate(self.handle, whole)
            print(
                f"pfref: the last line of {self.file} was cut short; its problem is "
                "run again",
                file=sys.stderr,
            )
        return whole

    def append(self, lines: Iterable[str]) -> None:
        """All of the lines, on the disk when this returns; or none, and UserError."""
        data = memoryview("".join(line + "\n" for line in lines).encode())
        written = 0
        try:
            while written < len(data):
                written += os.pwrite(self.handle, data[written:], self.size + written)
            os.fsync(self.handle)
        except OSError as error:
            with suppress(OSError):  # what was half written is mended by the next run
                os.ftruncate(self.handle, self.size)
            raise UserError(
                f"cannot write {self.file}: {error.strerror}; nothing recorded is "
                "lost: make room and give the same command again"
            ) from error
        self.size += written

    def close(self) -> None:
        for handle in self.handles:
            os.close(handle)
        self.handles.clear()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

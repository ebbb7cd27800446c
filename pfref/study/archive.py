"""A study's records as one small file, to keep and to share."""

import json
import lzma
import os
from dataclasses import replace
from pathlib import Path

from ..errors import UserError, writing
from ..inputs import check_place
from .records import Run, Written, encode, read
from .tasks import Task

PACKED = "records.jsonl.xz"


def pack(
    folder: Path, out: Path | None = None, answers: bool = False
) -> tuple[Path, int]:
    """Write a folder's current records as one small file, a line a problem: a text that
    several methods wrote stands in it once. Weights keep four digits. With `answers` no
    more of a text is kept than its answer, in a box. Returns the file and its size in
    bytes. Raises UserError if there are no records, or the file cannot be written.
    """
    study = read(folder)
    cells = list(study.current().values())
    order = {key: k for k, key in enumerate(cell["cell"] for cell in cells)}
    if not study.lines:
        raise UserError(f"{folder} holds no records; `pfref run` writes them")
    out = out or folder / PACKED
    if not out.name.endswith(".jsonl.xz"):
        raise UserError(
            f"{out} is no name for packed records; give one that ends in .jsonl.xz, "
            f"such as {PACKED}, under which `pfref report` finds them"
        )
    draft = out.with_name(out.name + ".part")
    filters = [dict(id=lzma.FILTER_LZMA2, preset=9 | lzma.PRESET_EXTREME)]
    filters[0]["dict_size"] = 1 << 27
    check_place(out)
    packed = False
    with writing(out):
        try:
            with lzma.open(draft, "wt", encoding="utf-8", filters=filters) as stream:
                for header in (*study.sessions, *cells):
                    print(json.dumps(header, separators=(",", ":")), file=stream)
                for id in sorted(study.lines):
                    own = [run for run in study.runs(id) if run.key in order]
                    if answers:
                        own = [bare(run, study.task_of(run)) for run in own]
                    if own:
                        packed = True
                        own.sort(key=lambda run: order[run.key])
                        print(encode(own, digits=4), file=stream)
            if not packed:
                raise UserError(
                    f"{folder} holds records, and what they are of is lost; give the "
                    "`pfref run` that made them again, which writes it anew"
                )
            os.replace(draft, out)
        finally:
            draft.unlink(missing_ok=True)
    return out, out.stat().st_size


def bare(run: Run, task: Task) -> Run:
    """Without its texts, but for their answers."""

    def box(path: Written) -> Written:
        answer = task.answer("".join(path.steps))
        text = f"\\boxed{{{answer}}}" if answer else ""
        kept = text if task.answer(text) == answer else path.steps[-1]
        return path._replace(steps=(kept,))

    return replace(run, paths=[box(path) for path in run.paths])

"""Make executed chapters fit to commit: `python -m tests.tidy_notebooks book/*.ipynb`;
`make execute` does it.

Pictures get a palette of 256 colours: a plot needs no more, and a page loads in a third
of the time. What a cell printed in several pieces becomes one, so that the page shows
one block. Solutions of exercises are hidden in JupyterLab and in Colab, as on the page.
"""

import base64
import io
import json
import re
import sys
from pathlib import Path

from PIL import Image


def shrink(png: bytes) -> bytes:
    """The same picture with at most 256 colours; as it was if that is no smaller."""
    small = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert(
        "RGB"
    )  # opaque: dark pages keep a figure's white ground
    picture.quantize(256, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    return min(png, small.getvalue(), key=len)


def joined(outputs: list[dict]) -> list[dict]:
    """Outputs in which neighbouring pieces of one stream are one."""
    found: list[dict] = []
    for output in outputs:
        if (
            found
            and output["output_type"] == "stream"
            and found[-1].get("name") == output["name"]
        ):
            whole = "".join(found[-1]["text"]) + "".join(output["text"])
            found[-1]["text"] = whole.splitlines(keepends=True)
        else:
            found.append(output)
    return found


def hide_solutions(cells: list[dict]) -> None:
    """Folded cells after the heading of the exercises are folded elsewhere too."""
    inside = False
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            if headings := re.findall(r"^## .*$", text, re.M):
                inside = headings[-1] == "## Exercises"
        elif inside and "hide-cell" in cell["metadata"].get("tags", []):
            cell["metadata"]["jupyter"] = {
                "source_hidden": True,
                "outputs_hidden": True,
            }
            cell["metadata"]["cellView"] = "form"


def main(files: list[str]) -> None:
    for file in map(Path, files):
        notebook = json.loads(file.read_text(encoding="utf-8"))
        hide_solutions(notebook["cells"])
        for cell in notebook["cells"]:
            if "outputs" in cell:
                cell["outputs"] = joined(cell["outputs"])
            for output in cell.get("outputs", []):
                if "image/png" in output.get("data", {}):
                    small = shrink(base64.b64decode(output["data"]["image/png"]))
                    output["data"]["image/png"] = base64.b64encode(small).decode()
        file.write_text(
            json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main(sys.argv[1:])

"""Records of measurements: what was measured, on what, with which versions; and
intervals for it.
"""

import datetime
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .randomness import generator


def environment() -> dict[str, Any]:
    """Hardware, versions and date."""
    import transformers

    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":")[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    return dict(
        date=datetime.date.today().isoformat(),
        processor=processor,
        threads=torch.get_num_threads(),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        python=platform.python_version(),
        torch=torch.__version__,
        transformers=transformers.__version__,
    )


def write_record(
    file: Path, command: str, results: dict[str, Any], **settings: Any
) -> None:
    """One JSON file: the command, its settings, the environment, the results."""
    file.parent.mkdir(parents=True, exist_ok=True)
    record = dict(
        command=command, settings=settings, environment=environment(), results=results
    )
    file.write_text(json.dumps(record, indent=1) + "\n")


def bootstrap(
    values: Sequence[float], draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """The mean over problems and its 95 % interval, by resampling problems."""
    x = torch.tensor(values, dtype=torch.float64)
    means = x[torch.randint(len(x), (draws, len(x)), generator=generator(seed))].mean(1)
    low, high = torch.quantile(
        means, torch.tensor([0.025, 0.975], dtype=torch.float64)
    ).tolist()
    return float(x.mean()), low, high

"""Break pfref on purpose, one place at a time, and see the checks fail: `python -m
tests.mutations`.

Each break is made in a copy of the repository and must fail the check named beside it,
a unit test or a chapter under strict nbval. In a chapter a cell must fail that
computes: one that shows the broken source differs in any case. Exits with 1 if a break
goes unseen, or if its line is no longer in the package.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from .book_checks import ROOT, cells, read, source
from .mutations_family import FAMILY

NBVAL = ["--nbval", "--nbval-current-env"]

# what is broken, file, the line's text, its replacement, the check
BREAKS = [
    (
        "evidence forgotten at resampling",
        "smc.py",
        "children = kept + log_mean_exp(v)[:, None]",
        "children = kept",
        "tests/test_exact.py",
    ),
    (
        "resampling after the last step",
        "smc.py",
        "due = stepped & active.any(1) & low",
        "due = low",
        "tests/test_filter_mistakes.py",
    ),
    (
        "caches not forked",
        "lm.py",
        "decoder.begin(fresh, paths.parents, sources, orders)",
        "decoder.begin(fresh, range(paths.rows), sources, orders)",
        "tests/test_exact.py",
    ),
    (
        "temperature left out",
        "sampling.py",
        "scratch.copy_(logits).div_(temperature)",
        "scratch.copy_(logits)",
        "tests/test_exact.py",
    ),
    (
        "a particle cut short counts as complete",
        "reasoning.py",
        "return torch.where(p.truncated.view(p.shape), -torch.inf, log_g)",
        "return log_g",
        "tests/test_exact.py",
    ),
    (
        "finished particles weighed again",
        "reasoning.py",
        "state.weighed | (state.finished if self.reweighted else False)",
        "state.weighed | state.finished",
        "tests/test_exact.py",
    ),
    (
        "a row sees one token too few",
        "cache.py",
        "seen = at <= position[..., None]",
        "seen = at < position[..., None]",
        "tests/test_exact.py",
    ),
    (
        "swapped rows keep their lengths",
        "cache.py",
        "for tensor in (self.lengths, self.offsets):",
        "for tensor in (self.offsets,):",
        "tests/test_cache.py",
    ),
    (
        "a copied row loses its last tokens",
        "cache.py",
        "reach = max(self.held[slot] for slot in old)",
        "reach = max(self.held[slot] for slot in old) - 1",
        "tests/test_cache.py",
    ),
    (
        "each batch begins its sources anew",
        "solver.py",
        "settings, task), sources[part])",
        "settings, task), sources[: len(texts[part])])",
        "tests/test_solve.py",
    ),
    (
        "uniforms shared by all populations",
        "randomness.py",
        "return [generator(seed, population) for",
        "return [generator(seed) for",
        "tests/test_exact.py",
    ),
    (
        "log-odds from a rounded probability",
        "families.py",
        "return logits[..., -1] - (logits[..., 0] if logits.shape[-1] == 2 else 0)",
        "return torch.softmax(logits.bfloat16(), -1)[..., -1].float().logit(1e-6)",
        "tests/test_prm.py",
    ),
    (
        "the first step's separator left out",
        "readers.py",
        "ids += (*plain(tokenizer, text), *close)",
        "ids += (*plain(tokenizer, text), *close[: len(places)])",
        "tests/test_prm.py",
    ),
    (
        "effective sample size of cubes",
        "weights.py",
        ".square().sum(-1)",
        ".pow(3).sum(-1)",
        "book/04_importance_sampling.ipynb",
    ),
    (
        "mean weight without its N",
        "weights.py",
        " - math.log(log_weights.shape[-1])",
        "",
        "book/04_importance_sampling.ipynb",
    ),
    (
        "forward algorithm without its transition",
        "statespace.py",
        "predicted = filtered[-1] @ self.transition",
        "predicted = filtered[-1]",
        "book/03_state_space.ipynb",
    ),
    (
        "smoother's gain transposed",
        "statespace.py",
        "means[-1] - self.transition @ mean",
        "means[-1] - mean",
        "book/03_state_space.ipynb",
    ),
    (
        "residual copies not taken",
        "resampling.py",
        "torch.where(slot < copies.sum(-1, keepdim=True), certain, drawn)",
        "drawn",
        "book/05_resampling.ipynb",
    ),
    (
        "systematic with fresh uniforms",
        "resampling.py",
        "uniforms[..., :1].expand_as(uniforms)",
        "uniforms",
        "book/05_resampling.ipynb",
    ),
    (
        "the first box is read, not the last",
        "answers.py",
        "if is_box and start > last:",
        "if is_box and last < 0:",
        "book/01_scaling.ipynb",
    ),
    (
        "the product's odds without its complement",
        "judgement.py",
        "return log_r - torch.log(-torch.expm1(log_r))",
        "return log_r",
        "book/10_reward_models.ipynb",
    ),
    (
        "lineage one generation short",
        "smc.py",
        "reversed(self.steps[:-1]):\n            lines.append",
        "reversed(self.steps[1:]):\n            lines.append",
        "book/07_finished_particles.ipynb",
    ),
    (
        "the prompt's share is left out",
        "attention.py",
        "out = torch.lerp(out, before, share)",
        "out = out",
        "tests/test_exact.py",
    ),
    (
        "a population waits for no one, and is weighed in mid-step",
        "smc.py",
        "stepped &= ready.cpu()",
        "pass",
        "tests/test_lm.py",
    ),
    (
        "an end token alone is weighed again",
        "reasoning.py",
        "silent = ~p.spoke & ~(p.ended & (state.z == torch.inf))",
        "silent = ~p.spoke & ~p.ended",
        "tests/test_exact.py",
    ),
]


def seen(file: str, line: str, replacement: str, check: str) -> bool:
    """Does the check fail in a copy with this break?"""
    with tempfile.TemporaryDirectory() as folder:
        for part in ("pfref", "tests", "book", "pyproject.toml"):
            original, target = ROOT / part, Path(folder, part)
            if original.is_dir():
                shutil.copytree(
                    original,
                    target,
                    ignore=shutil.ignore_patterns("__pycache__", "_build"),
                )
            else:
                shutil.copy(original, target)
        broken = Path(folder, "pfref", file)
        text = broken.read_text()
        if text.count(line) != 1:
            sys.exit(
                f"pfref/{file} holds {line!r} {text.count(line)} times, not once: "
                f"mend the list of breaks"
            )
        broken.write_text(text.replace(line, replacement))
        chapter = check.endswith(".ipynb")
        options = NBVAL if chapter else ["-x"]
        run = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "-rf",
                "-p",
                "no:cacheprovider",
                *options,
                check,
            ],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": folder, "TQDM_DISABLE": "1"},
            capture_output=True,
            text=True,
        )
        failed = re.findall(r"^FAILED (.*)", run.stdout, re.M)
        if chapter:
            sources = [
                source(cell) for cell in cells(read(Path(folder, check)), "code")
            ]
            numbers = [
                int(number)
                for line in failed
                for number in re.findall(r"::Cell (\d+)", line)
            ]
            failed = [number for number in numbers if "show(" not in sources[number]]
        return bool(failed)


def main() -> int:
    unseen = 0
    for what, file, line, replacement, check in BREAKS + FAMILY:
        found = seen(file, line, replacement, check)
        unseen += not found
        print(
            f"{'seen  ' if found else 'MISSED'}  {what} (pfref/{file}) by {check}",
            flush=True,
        )
    return int(unseen > 0)


if __name__ == "__main__":
    sys.exit(main())

"""The package as it is copied and installed: small files, relative imports, and the
models inside the wheel.
"""

import ast
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pfref"
MODULES = sorted(PACKAGE.rglob("*.py"))
TYPED = PACKAGE / "py.typed"  # tells others' type checkers that we have types
DATA = sorted(
    p
    for kind in ("*.jsonl", "*.safetensors", "*.json", "*.jinja")
    for p in (PACKAGE / "minimath").rglob(kind)
)


@pytest.mark.parametrize(
    "file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_a_file_has_at_most_300_lines(file) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 300


@pytest.mark.parametrize(
    "file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_the_package_imports_itself_relatively_and_no_other_folder(file) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        )
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module or ""]
        assert not {name.split(".")[0] for name in names} & {
            "pfref",
            "book",
            "tests",
            "benchmarks",
        }


def test_every_folder_with_code_is_packaged() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {str(file.parent.relative_to(ROOT)).replace("/", ".") for file in MODULES}
    assert folders == set(settings["tool"]["setuptools"]["packages"])


@pytest.mark.slow
def test_a_wheel_holds_code_and_models(tmp_path) -> None:
    if not any(file.suffix == ".safetensors" for file in DATA):
        pytest.skip("the models are not there yet")
    # A copy, so that no build folder is left in the repository and none that is there
    # gets in.
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    for file in [*MODULES, *DATA, TYPED]:
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            str(tmp_path / "out"),
            str(tmp_path),
        ],
        check=True,
    )
    with zipfile.ZipFile(next((tmp_path / "out").glob("pfref-*.whl"))) as wheel:
        there = set(wheel.namelist())
    assert {str(file.relative_to(ROOT)) for file in [*MODULES, *DATA, TYPED]} <= there

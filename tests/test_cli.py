"""The command line: what it prints, and one clear line with exit code 2 for each mistake."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pfref.__main__ import main
from pfref.minimath.problems import load_set

PROBLEM = load_set("minimath500")[1].problem
ROOT = Path(__file__).parents[1]


def fails(capsys: pytest.CaptureFixture, arguments: list[str], message: str) -> None:
    assert main(["solve", *arguments, "--quiet"]) == 2
    err = capsys.readouterr().err.strip()
    assert message in err and len(err.splitlines()) == 1 and err.startswith("pfref: ")


def test_solve_prints_answer_solution_vote_and_cost(capsys) -> None:
    assert main(["solve", PROBLEM, "-n", "8"]) == 0
    out, err = capsys.readouterr()
    assert (
        "answer" in out
        and "\\boxed{" in out
        and "vote" in out
        and "log evidence" in out
        and "generated tokens" in out
    )
    assert (
        "step 1:" in err
        and "particles active" in err
        and "ESS" in err
        and "tokens/s" in err
    )


def test_json_and_seed(capsys) -> None:
    found = []
    for _ in range(2):
        assert (
            main(["solve", PROBLEM, "-n", "4", "--seed", "7", "--json", "--quiet"]) == 0
        )
        found.append(json.loads(capsys.readouterr().out))
    for record in found:
        record["cost"].pop("seconds")
    assert (
        found[0] == found[1]
        and len(found[0]["particles"]) == 4
        and found[0]["problem"] == PROBLEM
    )


def test_plot_and_file(tmp_path, capsys) -> None:
    (tmp_path / "p.jsonl").write_text(
        json.dumps({"problem": PROBLEM})
        + "\n\n"
        + load_set("minimath500")[2].problem
        + "\n"
    )
    assert (
        main(
            [
                "solve",
                "--file",
                str(tmp_path / "p.jsonl"),
                "-n",
                "8",
                "--plot",
                str(tmp_path / "tree.png"),
                "--json",
                "--quiet",
            ]
        )
        == 0
    )
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert (tmp_path / "tree.png").read_bytes()[:4] == b"\x89PNG"


def test_one_bad_problem_loses_nothing(tmp_path, capsys) -> None:
    (tmp_path / "p.txt").write_text(f"What is the colour of Tuesday?\n{PROBLEM}\n")
    assert (
        main(
            ["solve", "--file", str(tmp_path / "p.txt"), "-n", "4", "--json", "--quiet"]
        )
        == 2
    )
    out, err = capsys.readouterr()
    assert (
        json.loads(out)["problem"] == PROBLEM
        and "problem 1: this model's tokenizer does not know" in err
    )


def test_many_problems_in_batches(tmp_path, capsys) -> None:
    """The same particles as alone; those without an answer are named; one line a cause."""
    several = load_set("minimath500")[:7]
    (tmp_path / "p.txt").write_text("\n".join(p.problem for p in several))
    common = [
        "--file",
        str(tmp_path / "p.txt"),
        "-n",
        "4",
        "--json",
        "--max-steps",
        "3",
    ]
    assert main(["solve", *common, "--batch", "12"]) == 2
    out, err = capsys.readouterr()
    assert (
        "0 of 7 problems done, step 1: 12 of 12 particles" in err
        and "6 of 7 problems done, step 1" in err
    )
    records = [json.loads(line) for line in out.splitlines()]
    assert 0 < len(records) < 7
    last = err.strip().splitlines()[-1]
    assert last.startswith("pfref: problem") and "no particle is left" in last
    for record in records[:2]:
        assert (
            main(
                [
                    "solve",
                    record["problem"],
                    "-n",
                    "4",
                    "--json",
                    "--max-steps",
                    "3",
                    "--quiet",
                ]
            )
            == 0
        )
        alone = json.loads(capsys.readouterr().out)
        assert [p["steps"] for p in alone["particles"]] == [
            p["steps"] for p in record["particles"]
        ]
    assert main(["solve", *common, "--tau", "0", "--quiet"]) == 2
    assert (
        capsys.readouterr().err
        == "pfref: the potential's temperature must be positive, not 0.0\n"
    )


def test_a_file_of_problems_may_repeat_them_and_skip_some(tmp_path, capsys) -> None:
    """Batches change nothing, twins have particles of their own, each solution says whose it is, and a bad line is named."""
    (tmp_path / "p.txt").write_text(
        f"\ufeffnonsense\n{PROBLEM}\nnonsense\n{PROBLEM}\n", encoding="utf-8"
    )
    found = []
    for batch in ("4", "64"):
        assert (
            main(
                [
                    "solve",
                    "--file",
                    str(tmp_path / "p.txt"),
                    "-n",
                    "4",
                    "--json",
                    "--quiet",
                    "--batch",
                    batch,
                    "--plot",
                    str(tmp_path / "tree.png"),
                ]
            )
            == 2
        )
        out, err = capsys.readouterr()
        assert (
            "tree.png shows problem 2, the first that was solved" in err
            and "pfref: problems 1, 3: this model's tokenizer" in err
        )
        records = [json.loads(line) for line in out.splitlines()]
        assert [record["number"] for record in records] == [2, 4]
        found.append([[p["steps"] for p in record["particles"]] for record in records])
    assert found[0] == found[1] and found[0][0] != found[0][1]
    assert main(["solve", "--file", str(tmp_path / "p.txt"), "-n", "4", "--quiet"]) == 2
    out = capsys.readouterr().out
    assert (
        out.startswith(f"problem 2: {PROBLEM}\n\n")
        and f"s for a batch of 2\n\nproblem 4: {PROBLEM}\n" in out
    )


def test_problems_go_into_a_file_and_back(tmp_path, capsys) -> None:
    assert main(["problems", "-n", "2", "--json"]) == 0
    (tmp_path / "p.jsonl").write_text(capsys.readouterr().out)
    assert (
        main(
            [
                "solve",
                "--file",
                str(tmp_path / "p.jsonl"),
                "-n",
                "4",
                "--json",
                "--quiet",
            ]
        )
        == 0
    )
    assert [
        json.loads(line)["problem"] for line in capsys.readouterr().out.splitlines()
    ] == [p.problem for p in load_set("minimath500")[:2]]


def test_output_that_nobody_reads_on_is_no_traceback() -> None:
    run = subprocess.run(
        f"{sys.executable} -m pfref problems -n 500 | head -n 1",
        shell=True,
        cwd=ROOT,
        text=True,
        capture_output=True,
    )
    assert (
        "level" not in run.stdout
        and run.stdout
        and "Traceback" not in run.stderr
        and "Broken" not in run.stderr
    )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([PROBLEM, "--model", "/no/such/folder"], "there is no model at"),
        ([PROBLEM, "--model", "nosuchmodel"], "there is no model at"),
        ([PROBLEM, "--model", str(ROOT / "tests")], "no config.json"),
        ([PROBLEM, "--model", str(ROOT / "README.md")], "not a .gguf file"),
        ([PROBLEM, "--prm", "minimath-small"], "not a process reward model"),
        ([""], "the problem is empty"),
        (["Compute " + "1+" * 600 + "1."], "leaves no room"),
        ([PROBLEM, "-n", "0"], "at least one particle"),
        ([PROBLEM, "--max-step-tokens", "2"], "met a limit of length"),
        ([PROBLEM, "--tau", "0"], "must be positive"),
        ([PROBLEM, "--temperature", "-1"], "not negative"),
        ([PROBLEM, "--threshold", "7"], "between 0 and 1"),
        ([PROBLEM, "--batch", "0"], "at least one particle, not 0"),
        ([PROBLEM, "--system", "Be brief."], "no place for a system prompt"),
        ([PROBLEM, "--plot", "tree.txt"], "cannot draw"),
        ([PROBLEM, "--plot", "/no/such/folder/tree.png"], "no folder"),
        ([PROBLEM, "--device", "abacus"], "device"),
        ([], "give one problem"),
        (["--file", "/no/such/file"], "cannot read"),
        ([PROBLEM, "--file", "x"], "give one problem"),
    ],
)
def test_bad_input(capsys, arguments, message) -> None:
    fails(capsys, arguments, message)


def test_empty_and_broken_files(tmp_path, capsys) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "broken").write_text('{"question": "x"}\n')
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "number").write_text('{"problem": 3}\n')
    fails(capsys, ["--file", str(tmp_path / "number")], "is not a text")
    fails(capsys, ["--file", str(tmp_path / "empty")], "holds no problem")
    fails(capsys, ["--file", str(tmp_path / "broken")], "line 1")
    fails(capsys, ["--file", str(tmp_path / "binary")], "cannot read")


def test_unreachable_hub_is_one_quick_sentence(tmp_path) -> None:
    began = time.time()
    run = subprocess.run(
        [sys.executable, "-m", "pfref", "solve", PROBLEM, "--model", "nobody/nothing"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        env=os.environ
        | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)},
    )
    assert (
        run.returncode == 2
        and "the hub cannot be reached" in run.stderr
        and len(run.stderr.strip().splitlines()) == 1
    )
    assert time.time() - began < 60


def test_interrupt_is_130(tmp_path) -> None:
    (tmp_path / "many").write_text(f"{PROBLEM}\n" * 2000)
    run = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "pfref",
            "solve",
            "--file",
            str(tmp_path / "many"),
            "--json",
        ],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # a job in the background ignores it
    try:
        assert json.loads(run.stdout.readline())["answer"]
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)
    finally:
        run.kill()
    assert (
        run.returncode == 130
        and err.rstrip().endswith("pfref: stopped")
        and "Traceback" not in err
    )


def test_help_teaches_and_problems_are_listed(capsys) -> None:
    with pytest.raises(SystemExit) as done:
        main(["solve", "--help"])
    assert (
        done.value.code == 0
        and "--potential" in (text := capsys.readouterr().out)
        and "examples:" in text
    )
    assert main(["problems", "-n", "2", "--level", "5"]) == 0
    assert capsys.readouterr().out.count("level 5") == 2


def test_package_copied_alone_works(tmp_path) -> None:
    """In an empty project, with torch, transformers and numpy only: nothing else of the repository is needed."""
    shutil.copytree(
        ROOT / "pfref", tmp_path / "pfref", ignore=shutil.ignore_patterns("__pycache__")
    )
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from pfref import LanguageModel, RewardModel, solve\n"
        f"print(solve({PROBLEM!r}, LanguageModel.load('minimath-small'), RewardModel.load('minimath-prm'), 4).answer)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert run.returncode == 0 and run.stdout.strip().isdigit(), run.stderr

"""The command line: what it prints, and one clear line with exit code 2 for each
mistake.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pfref import LanguageModel, RewardModel, UserError
from pfref.__main__ import COMMANDS, check_files, main
from pfref.loading import SHIPPED
from pfref.minimath.problems import load_set
from pfref.options import escaped, shown
from pfref.settings import Settings
from tests.recorded import found

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


@pytest.mark.parametrize("method", ["samples", "beam", "tempering"])
def test_a_method_by_name(capsys, method) -> None:
    flags = ["--method", method, "-n", "8", "--sweeps", "2", "--temperatures", "1,2"]
    assert main(["solve", PROBLEM, *flags, "--choose", "argmax"]) == 0
    out, err = capsys.readouterr()
    assert "answer  " in out and "4 of" not in out and "tokens/s" in err
    assert ("log evidence" in out) == (method != "beam")


def test_plot_and_file(tmp_path, capsys) -> None:
    (tmp_path / "p.jsonl").write_text(
        json.dumps({"problem": PROBLEM})
        + "\n\n"
        + json.dumps({"question": load_set("minimath500")[2].problem})
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
        and "problem 1: this model has a tokenizer that does not know" in err
    )


def test_many_problems_in_batches(tmp_path, capsys) -> None:
    """The same particles as alone; those without an answer are named."""
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
    """Batches change nothing, twins have particles of their own, each solution says
    whose it is, and a bad line is named.
    """
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
            and "pfref: problems 1, 3: this model has a tokenizer" in err
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
        ([PROBLEM, "--model", "nobody/nothing"], "needs a reward model"),
        ([PROBLEM, "--prm", "self", "--prm-family", "trl"], "no --prm-family; leave"),
        ([PROBLEM, "--prm-family", "nosuchfamily"], "family"),
        ([PROBLEM, "--revision", "v9"], "has no revision 'v9'"),
        ([PROBLEM, "--prm-revision", "v9"], "has no revision 'v9'"),
        ([PROBLEM, "--chat-template-args", "[1]"], "is not a JSON object"),
        ([PROBLEM, "--chat-template-args", "{"], "is not a JSON object"),
        ([PROBLEM, "--dtype", "int4"], "invalid choice"),
        ([PROBLEM, "--no-such-flag"], "unrecognized arguments"),
        ([PROBLEM, "--model", "minimath-prm"], "which judges text and writes none"),
        ([PROBLEM, "--prm", "minimath-small"], "not a process reward model"),
        ([""], "the problem is empty"),
        (["Compute " + "1+" * 600 + "1."], "leaves no room"),
        ([PROBLEM, "-n", "0"], "at least one particle"),
        ([PROBLEM, "--max-step-tokens", "2"], "met a limit of length"),
        ([PROBLEM, "--tau", "0"], "must be positive"),
        ([PROBLEM, "--temperature", "-1"], "at least 1e-09, and not -1"),
        ([PROBLEM, "--temperature", "1e-40"], "0, which takes the likeliest token, or"),
        ([PROBLEM, "--target-temperature", "1e-10"], "target's temperature is at"),
        ([PROBLEM, "--temperature", "nan"], "nan is not a finite number"),
        ([PROBLEM, "--tau", "inf"], "inf is not a finite number"),
        ([PROBLEM, "--threshold", "much"], "invalid number value"),
        ([PROBLEM, "--threshold", "7"], "between 0 and 1"),
        ([PROBLEM, "--method", "mcts"], "invalid choice"),
        ([PROBLEM, "--temperatures", "1,x"], "invalid numbers value"),
        ([PROBLEM, "--temperatures", "2,1"], "begin with 1"),
        ([PROBLEM, "--width", "0"], "width is at least 1"),
        ([PROBLEM, "--batch", "0"], "at least one particle, not 0"),
        ([PROBLEM, "--system", "Be brief."], "no place for a system prompt"),
        ([PROBLEM, "--plot", "tree.txt"], "cannot draw"),
        ([PROBLEM, "--plot", "/no/such/folder/tree.png"], "no folder"),
        ([PROBLEM, "--device", "abacus"], "device"),
        ([PROBLEM, "--device", "mps"], "does not run on the device mps"),
        ([PROBLEM, "--prm-device", "meta"], "does not run on the device meta"),
        ([], "give one problem"),
        (["--file", "/no/such/file"], "cannot read"),
        ([PROBLEM, "--file", "x"], "give one problem"),
    ],
)
def test_bad_input(capsys, arguments, message) -> None:
    fails(capsys, arguments, message)


@pytest.mark.parametrize("command", ["report", "pack"])
def test_what_the_system_refuses_is_one_line(capsys, command: str) -> None:
    name = "a" * 5000
    assert main([command, name]) == 2
    assert capsys.readouterr().err == f"pfref: {name}: File name too long\n"


def test_unreachable_hub_is_one_quick_sentence(tmp_path) -> None:
    began = time.time()
    run = subprocess.run(
        [sys.executable, "-m", "pfref", "solve", PROBLEM]
        + ["--model", "nobody/nothing", "--prm", "self"],
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


def test_interrupt_while_torch_is_imported_is_no_traceback(tmp_path) -> None:
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt\n")
    code = "import sys; from pfref.__main__ import main; sys.exit(main())"
    for how in (["-m", "pfref"], ["-c", code]):
        run = subprocess.run(
            [sys.executable, *how, "solve", PROBLEM],
            cwd=ROOT,
            text=True,
            capture_output=True,
            env=os.environ | {"PYTHONPATH": str(tmp_path)},
        )
        assert run.returncode == 130 and run.stderr == "\npfref: stopped\n"


def test_the_default_reward_model_is_for_minimath_only(tmp_path, capsys) -> None:
    """A real model's prose would be unknown characters to it."""
    folder = shutil.copytree(SHIPPED / "small", tmp_path / "model")
    fails(capsys, [PROBLEM, "--model", str(folder)], "give --prm")
    for model, prm in ((folder, "minimath-prm"), (SHIPPED / "small", None)):
        named = ["--prm", prm] if prm else []
        run = ["solve", PROBLEM, "-n", "2", "--quiet", "--model", str(model), *named]
        assert main(run) == 0
        assert "answer" in capsys.readouterr().out


def test_flags_reach_the_models(monkeypatch, capsys) -> None:
    """Names, devices, dtypes and revisions, each to its own model."""
    asked = []

    def note(kind: str) -> classmethod:
        def load(_: type, *args: object, **named: object) -> None:
            asked.append((kind, args, {k: v for k, v in named.items() if v}))
            if kind != "lm" or asked[0][1][0] == "enough":
                raise UserError("enough")

        return classmethod(load)

    monkeypatch.setattr(LanguageModel, "load", note("lm"))
    monkeypatch.setattr(RewardModel, "load", note("prm"))
    monkeypatch.setattr(RewardModel, "judging", note("self"))
    common = ["--model", "a/b", "--revision", "r", "--dtype", "bfloat16"]
    common += ["--device", "cpu", "--chat-template-args", '{"enable_thinking": false}']
    lm = dict(revision="r", template_args={"enable_thinking": False})
    own = ["--prm", "c/d", "--prm-device", "cpu:0", "--prm-revision", "s"]
    own += ["--prm-family", "trl", "--prm-separator", "\\n\\n"]
    fails(capsys, [PROBLEM, *common, *own], "enough")
    prm = dict(revision="s", family="trl", separator="\n\n")
    assert asked == [
        ("lm", ("a/b", "cpu", "bfloat16"), lm),
        ("prm", ("c/d", "cpu:0", "bfloat16"), prm),
    ]
    asked.clear()
    fails(capsys, [PROBLEM, *common, "--prm", "self"], "enough")
    assert [kind for kind, *_ in asked] == ["lm", "self"]


def test_a_model_judges_itself(capsys) -> None:
    run = ["solve", PROBLEM, "-n", "2", "--prm", "self", "--quiet"]
    assert main(run) == 2  # MiniMath's has no word for yes
    assert len(capsys.readouterr().err.splitlines()) == 1


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


@pytest.mark.slow
def test_package_copied_alone_works(tmp_path) -> None:
    """In an empty project, with torch, transformers and numpy only: nothing else of the
    repository is needed.
    """
    shutil.copytree(
        ROOT / "pfref", tmp_path / "pfref", ignore=shutil.ignore_patterns("__pycache__")
    )
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from pfref import LanguageModel, RewardModel, solve\n"
        f"print(solve({PROBLEM!r}, LanguageModel.load('minimath-small'), "
        f"RewardModel.load('minimath-prm'), 4).answer)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert run.returncode == 0 and run.stdout.strip().isdigit(), run.stderr


# What is said, by a solver that is pretended


def pretend(
    monkeypatch: pytest.MonkeyPatch, unread: dict[int, str], none_left: set[str]
) -> list[str]:
    """Solves all problems that are read but those in `none_left`. Returns a list that
    gets the problems of which a picture was drawn.
    """
    drawn: list[str] = []

    def solved(problem: str) -> SimpleNamespace:
        one = found()
        one.problem, one.votes, one.log_evidence = problem, {"5": 1.0}, None
        if problem in none_left:
            one.chosen = None
        return one

    def solve(problems: list[str], *_: object, done: Any, **__: object) -> None:
        done([solved(problem) for problem in problems])

    monkeypatch.setattr("pfref.pair.load_models", lambda flags: (None, None))
    monkeypatch.setattr("pfref.pair.unreadable", lambda *_: unread)
    monkeypatch.setattr("pfref.solver.solve", solve)
    monkeypatch.setattr(
        "pfref.plots.save_genealogy", lambda found, file: drawn.append(found.problem)
    )
    return drawn


def said(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str, str]:
    code = main(["solve", *arguments, "--quiet"])
    return code, *capsys.readouterr()


NO_PARTICLE = (
    "no particle is left: every one met a limit of length before an answer, or was "
    "ruled out by the reward model; raise the limits, take more particles, or models "
    "with a longer context"
)


def test_of_two_solutions_each_has_its_number_and_one_alone_has_none(
    monkeypatch, capsys, tmp_path
) -> None:
    pretend(monkeypatch, {}, set())
    (tmp_path / "p.txt").write_text("one\ntwo\n")
    solution = "so 5\n\nanswer        5\nvote          5 100%\ncost          1 prompt"
    code, out, err = said(capsys, "--file", str(tmp_path / "p.txt"))
    assert (code, err) == (0, "") and out.startswith(f"problem 1: one\n\n{solution}")
    assert f"0.1 s\n\nproblem 2: two\n\n{solution}" in out
    code, out, err = said(capsys, "one")
    assert (code, err) == (0, "") and out.startswith(solution)
    _, out, _ = said(capsys, "one", "--json")
    assert json.loads(out)["number"] == 1


def test_every_cause_has_its_line(monkeypatch, capsys, tmp_path) -> None:
    pretend(monkeypatch, {0: "odd"}, {"two"})
    (tmp_path / "p.txt").write_text("one\ntwo\nthree\n")
    code, out, err = said(capsys, "--file", str(tmp_path / "p.txt"))
    assert code == 2 and out.startswith("problem 3: three\n")
    assert err == f"pfref: problem 1: odd\npfref: problem 2: {NO_PARTICLE}\n"
    assert said(capsys, "one") == (2, "", "pfref: odd\n")
    pretend(monkeypatch, {}, {"one"})
    assert said(capsys, "one") == (2, "", f"pfref: {NO_PARTICLE}\n")


def test_a_picture_is_of_the_first_that_was_solved(
    monkeypatch, capsys, tmp_path
) -> None:
    (tmp_path / "p.txt").write_text("one\ntwo\nthree\n")
    file = tmp_path / "tree.SVG"
    arguments = ["--file", str(tmp_path / "p.txt"), "--plot", str(file)]
    drawn = pretend(monkeypatch, {}, set())
    assert said(capsys, *arguments)[::2] == (0, "") and drawn == ["one"]
    drawn = pretend(monkeypatch, {}, {"one"})
    _, _, err = said(capsys, *arguments)
    told, failure = err.splitlines()
    assert told == f"pfref: {file} shows problem 2, the first that was solved"
    assert drawn == ["two"] and failure == f"pfref: problem 1: {NO_PARTICLE}"


def test_pictures_of_every_kind() -> None:
    for end in ("png", "svg", "pdf", "jpg", "jpeg", "PNG"):
        check_files(Namespace(plot=Path(f"tree.{end}"), html=None), Settings())


def test_problems_as_text_and_none_of_them(capsys) -> None:
    first = load_set("minimath500")[0]
    assert main(["problems", "-n", "1"]) == 0
    assert capsys.readouterr().out == (
        f"{first.problem}\n    level {first.level}, {first.subject}, "
        f"answer {first.answer}\n"
    )
    assert main(["problems", "-n", "0"]) == 0 and not capsys.readouterr().out


def test_exit_codes_of_interruptions(monkeypatch, capfd) -> None:
    moved: list[tuple[int, ...]] = []

    def interrupted(error: type[BaseException]) -> int:
        def command(_: Namespace) -> None:
            raise error

        monkeypatch.setitem(COMMANDS, "problems", command)
        return main(["problems"])

    monkeypatch.setattr(os, "dup2", lambda *files: moved.append(files))
    assert interrupted(BrokenPipeError) == 141 and len(moved) == 1
    assert moved[0][1] == sys.stdout.fileno()
    os.write(moved[0][0], b"to nobody")
    os.close(moved[0][0])
    assert capfd.readouterr() == ("", "")
    assert interrupted(KeyboardInterrupt) == 130
    assert capfd.readouterr() == ("", "\npfref: stopped\n")


def test_help_shows_defaults_as_one_would_type_them(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["solve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for default in ("\\n\\n", "1,2", "0.8", "1", "0.5", "16", "filter", "0", "2048"):
        assert f"(default: {default})" in text
    assert "(default: None)" not in text
    assert escaped("\\n-\\t") == "\n-\t" and shown("\n-\t") == "\\n-\\t"

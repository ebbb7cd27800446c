"""Flags and recipes are made of the settings' fields."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from pfref import UserError
from pfref.arguments import EXAMPLES, parser
from pfref.options import OPTIONS, options_of, settings_from
from pfref.settings import Proposal, Settings


def test_every_option_has_a_flag_with_its_default_and_help(capsys) -> None:
    assert options_of(parser().parse_args(["solve"])) == Settings()
    with pytest.raises(SystemExit):
        parser().parse_args(["solve", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for option in (*fields(Settings), *fields(Proposal)):
        if option.name != "proposal":
            assert "--" + option.name.replace("_", "-") in text
            assert option.metadata["help"].split(":")[0] in text


def test_flags_reach_the_settings() -> None:
    """Each of its own kind; the proposal's beside the others."""
    flags = "-n 8 --method tempering --temperatures 1,3.5 --tau 2 --anneal entropic"
    flags += " --delimiter \\n --step-tokens 5 --temperature 0.5 --system Brief."
    found = options_of(parser().parse_args(["solve", *flags.split(" ")]))
    assert found == Settings(
        method="tempering",
        particles=8,
        temperatures=(1.0, 3.5),
        tau=2.0,
        anneal="entropic",
        system="Brief.",
        proposal=Proposal(delimiter="\n", step_tokens=5, temperature=0.5),
    )


def test_latex_in_a_system_prompt_stays() -> None:
    words = ["solve", "--system", r"In \boxed{}, with \text, \neq, \times.", "2+3"]
    assert options_of(parser().parse_args(words)).system == words[2]


MODELS = (
    "revision endpoint endpoint_model dialect in_flight chat_template_args prm "
    "prm_revision prm_family prm_separator prm_endpoint prm_endpoint_model prm_noise "
    "device prm_device problem file plot html"
)


def others(*words: str) -> dict[str, object]:
    """What `pfref solve` is told besides the settings."""
    found = vars(parser().parse_args(["solve", *words]))
    return {name: value for name, value in found.items() if name not in OPTIONS}


def test_models_and_output_where_nothing_is_said() -> None:
    assert others() == dict.fromkeys(MODELS.split()) | dict(
        command="solve", model="minimath-small", dtype="auto", json=False, quiet=False
    )


def test_flags_of_models_and_output() -> None:
    words = (
        "1+2 --file f.csv --model m --revision r --endpoint u --endpoint-model e "
        "--dialect sglang --in-flight 3 --prm p --prm-revision s --prm-family f "
        "--prm-separator \\n\\n --prm-endpoint v --prm-endpoint-model g --prm-noise 2 "
        "--device cpu --prm-device cuda --dtype float16 --json --plot a.png "
        '--html b.html --quiet --chat-template-args {"enable_thinking":false}'
    )
    assert others(*words.split()) == dict(
        command="solve",
        problem="1+2",
        file=Path("f.csv"),
        model="m",
        revision="r",
        endpoint="u",
        endpoint_model="e",
        dialect="sglang",
        in_flight=3,
        prm="p",
        prm_revision="s",
        prm_family="f",
        prm_separator="\n\n",
        prm_endpoint="v",
        prm_endpoint_model="g",
        prm_noise=2.0,
        device="cpu",
        prm_device="cuda",
        dtype="float16",
        json=True,
        plot=Path("a.png"),
        html=Path("b.html"),
        quiet=True,
        chat_template_args=dict(enable_thinking=False),
    )


def test_choices_of_flags() -> None:
    for flag, choices, wrong in (
        ("--dtype", "auto float32 bfloat16 float16", "int4"),
        ("--dialect", "vllm sglang llama.cpp transformers", "ollama"),
    ):
        found = [others(flag, choice)[flag[2:]] for choice in choices.split()]
        assert found == choices.split()
        with pytest.raises(UserError, match=f"{wrong}.*`pfref solve --help` lists"):
            others(flag, wrong)
    for text in ("[1]", "{", "1"):
        with pytest.raises(UserError, match="is not a JSON object, such as '{.enable"):
            others("--chat-template-args", text)


def test_arguments_of_problems() -> None:
    def told(*words: str) -> dict[str, object]:
        return vars(parser().parse_args(["problems", *words]))

    usual = dict(command="problems", n=5, level=None, json=False)
    assert told() == usual
    for level in range(1, 6):
        words = ["-n", "3", "--json", "--level", str(level)]
        assert told(*words) == usual | dict(n=3, json=True, level=level)
    for wrong in ("0", "6"):
        with pytest.raises(UserError, match="invalid choice"):
            told("--level", wrong)
    with pytest.raises(UserError, match="required: command; `pfref --help` lists"):
        parser().parse_args([])


def test_help_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ([], ["solve"]):
        with pytest.raises(SystemExit):
            parser().parse_args([*command, "--help"])
        text = capsys.readouterr().out
        assert EXAMPLES in text and text.startswith("usage: pfref")
    for title in ("models", "method", "proposal", "run and output"):
        assert f"\n{title}:\n" in text


def test_an_option_of_the_proposal_is_sent_there() -> None:
    with pytest.raises(UserError, match=r"give proposal=Proposal\(temperature=...\)"):
        Settings().but(temperature=1.0)


def test_values_of_a_recipe() -> None:
    base = settings_from(dict(temperature=0, temperatures=[1, 2], choose="vote"))
    assert base.proposal.temperature == 0 and base.temperatures == (1, 2)
    more = settings_from(dict(max_steps=3, choose=None), base)
    assert more.proposal == Proposal(temperature=0, max_steps=3)
    assert more.choose is None and more.temperatures == (1, 2)
    for values, message in (
        (dict(tauu=1), "no option 'tauu'; did you mean tau?"),
        (dict(proposal=Proposal()), "no option 'proposal'"),
        (dict(qqqqq=1), "`pfref solve --help` lists them"),
        (dict(tau=True), "tau is a finite number, not True"),
        (dict(tau=float("inf")), "tau is a finite number"),
        (dict(tau=None), "tau is a finite number"),
        (dict(sweeps=2.0), "sweeps is a whole number"),
        (dict(temperatures=1.0), "temperatures is a list"),
        (dict(method=3), "method is a text"),
        (dict(max_tokens=0), "at least 1"),
    ):
        with pytest.raises(UserError) as told:
            settings_from(values)
        assert message in str(told.value)


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys\nfrom pfref.__main__ import main\n"
        "try: main([*sys.argv[1:], '--help'])\nexcept SystemExit: pass\n"
        "sys.exit(bool({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    )
    for command in ("solve", "run", "report"):
        run = subprocess.run([sys.executable, "-c", code, command], capture_output=True)
        assert run.returncode == 0 and b"examples:" in run.stdout

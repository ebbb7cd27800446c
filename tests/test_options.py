"""Flags and recipes are made of the settings' fields."""

import subprocess
import sys
from dataclasses import fields

import pytest

from pfref import UserError
from pfref.arguments import parser
from pfref.options import options_of, settings_from
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

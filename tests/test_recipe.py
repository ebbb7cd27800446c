"""Recipes: the shipped ones can be read, and each mistake is one clear line."""

import shutil
from pathlib import Path

import pytest

from pfref import UserError
from pfref.__main__ import main
from pfref.study.recipe import Recipe

ROOT = Path(__file__).parents[1]
GOOD = dict(task="minimath", data="minimath500", budgets=[1], seeds=[0])


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(budget=[1]), "unknown entry 'budget'; did you mean budgets"),
        (dict(settings=dict(temperatur=1)), "did you mean temperature"),
        (dict(settings=dict(particles=4)), "unknown entry 'particles'"),
        (dict(settings=dict(tau="much")), "tau is a finite number, not 'much'"),
        (dict(settings=dict(max_steps=2.5)), "max_steps is a whole number"),
        (dict(settings=dict(temperatures=[1, "2"])), "a list of finite numbers"),
        (dict(settings=dict(potential="evens")), "potential is one of odds, score"),
        (
            dict(method=[dict(label="a", method="mcts")]),
            "method is one of greedy, samples",
        ),
        (dict(settings=dict(delimiter=r"\n")), "not a newline; in TOML"),
        (dict(method=[dict(label="a", widht=4)]), "did you mean width"),
        (dict(method=[dict(label="a"), dict(label="a")]), "two methods have one label"),
        (dict(method=[]), "no [[method]] table"),
        (dict(method=[{}]), "a method has no label"),
        (dict(task="chess"), "there is no task 'chess'"),
        (dict(task=None), "it names no task"),
        (dict(budgets=[]), "budgets is a list"),
        (dict(budgets=[0]), "each of budgets is at least 1"),
        (dict(budgets=[[1], [2]]), "each of budgets is a whole number, not [1]"),
        (
            dict(method=[dict(label="majority")]),
            "'majority' is a row that reports",
        ),
        (dict(method=[dict(label="a", bar="no")]), "bar is true or false, not 'no'"),
        (dict(budgets=[4, 4]), "names one number twice"),
        (dict(seeds="0"), "seeds is a list"),
        (dict(limit=-1), "limit is at least 0"),
        (dict(prm_noise="0.5"), "prm_noise is a finite number, not '0.5'"),
        (dict(prm_noise=float("nan")), "prm_noise is a finite number, not nan"),
        (dict(prm_noise=True), "prm_noise is a finite number, not True"),
        (dict(prm=7), "prm is a text in quotes, not 7"),
        (dict(chat_template_args="x"), "chat_template_args is a table, not 'x'"),
    ],
)
def test_mistakes_in_a_recipe(change, message) -> None:
    with pytest.raises(UserError) as told:
        Recipe.of(GOOD | dict(method=[dict(label="a")]) | change)
    assert message in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["run", "nosuch"], "there is no recipe nosuch; name a TOML file, or one of"),
        (["run", "x" * 5000], "there is no recipe xxx"),
        (["run", "minimath500", "--data", "x" * 5000], "there is no set or file"),
        (["run", "README.md"], "cannot read the recipe README.md"),
        (["run", "minimath500", "--data", "nosuch"], "nosuch"),
        (["run", "minimath500", "--part", "3/2"], "3/2 is not a share"),
        (["run", "minimath500", "--model", "nosuch"], "there is no model at"),
        (["report", "nosuch"], "nosuch holds no records"),
        (["pack", "nosuch"], "nosuch holds no records"),
    ],
)
def test_mistakes_on_the_command_line(
    tmp_path, monkeypatch, capsys, arguments, message
) -> None:
    shutil.copy(ROOT / "README.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main([*arguments, *(["--quiet"] if arguments[0] == "run" else [])]) == 2
    err = capsys.readouterr().err.strip()
    assert message in err and len(err.splitlines()) == 1 and err.startswith("pfref: ")


def test_every_shipped_recipe_can_be_read() -> None:
    for file in (ROOT / "pfref/recipes").glob("*.toml"):
        cells = Recipe.read(file.stem).cells
        assert len({cell.key for cell in cells}) == len(cells)
        seeds = [cell.settings.seed for cell in cells]
        assert seeds == sorted(seeds)  # one seed of all methods, then the next


def test_asked_budgets_and_seeds_hold_for_methods_with_their_own() -> None:
    every = Recipe.read("minimath500")
    some = Recipe.read("minimath500", budgets=[4, 16], seeds=[1])
    labels = {(cell.label, cell.n) for cell in some.cells}
    assert ("beam search", 16) in labels and ("beam search", 8) not in labels
    assert ("filter", 4) in labels and ("Gibbs", 16) in labels
    drawn = [cell for cell in some.cells if cell.label != "samples"]
    assert {cell.settings.seed for cell in drawn} == {1}
    keys = {cell.key for cell in every.cells}
    assert all(c.key in keys for c in some.cells if c.label in ("filter", "Gibbs"))
    few = Recipe.read("minimath500", budgets=[2])
    assert "DVTS" not in {cell.label for cell in few.cells}


def test_who_is_left_out_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    Recipe.read("minimath500", budgets=[2])
    assert "DVTS" in capsys.readouterr().err
    with pytest.raises(UserError, match="recipe minimath500: "):
        Recipe.read("minimath500", budgets=[])


def test_a_probe_trained_anew_is_another_one(tmp_path: Path) -> None:
    file = tmp_path / "p.safetensors"
    keys = []
    for text in ("one", "two"):
        file.write_text(text)
        cells = Recipe.read("minimath500", prm=str(file)).cells
        keys.append({cell.key for cell in cells})
    assert not keys[0] & keys[1]


def test_a_mark_of_byte_order_is_no_part_of_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    text = 'task = "minimath"\ndata = "minimath500"\nbudgets = [1]\nseeds = [0]\n'
    text += '[[method]]\nmethod = "samples"\n'
    file.write_text(text, encoding="utf-8-sig")
    assert [cell.n for cell in Recipe.read(str(file)).cells] == [1]

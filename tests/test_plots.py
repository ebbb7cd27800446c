"""Lines of descent, and intervals of records."""

import json
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from pfref import plots
from pfref.plots import COLOURS, genealogy, save_genealogy, survivors
from pfref.records import bootstrap, write_record


def test_survivors_follow_the_ancestors_back() -> None:
    ancestors = torch.tensor(
        [[0, 0, 2], [1, 1, 2], [0, 1, 2]]
    )  # the last row names nobody's parents
    assert survivors(ancestors) == [
        [{0, 1}, set(), {2}],
        [set(), {0, 1}, {2}],
        [{0}, {1}, {2}],
    ]


def test_genealogy_draws_every_particle_and_labels_answers() -> None:
    import matplotlib

    matplotlib.use("Agg")
    log_weights = torch.tensor(
        [[0.0, -1.0, 0.5], [0.0, -torch.inf, 0.0], [0.0, 0.0, -1.0]]
    )
    axes = genealogy(
        log_weights,
        torch.tensor([[0, 0, 2], [0, 2, 2], [0, 1, 2]]),
        ["7", "7", None],
        "a title",
    )
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert (
        labels[0].startswith("7: 8")
        and labels[1].startswith("no answer")
        and axes.get_title() == "a title"
    )
    assert len(axes.collections) >= 9 and len(axes.lines) == 6
    lines = {(*line.get_xdata(), *line.get_ydata()) for line in axes.lines}
    assert lines == {
        *((1, 2, 0, 0), (1, 2, 0, 1), (1, 2, 2, 2)),  # a line from parent to child
        *((2, 3, 0, 0), (2, 3, 2, 1), (2, 3, 2, 2)),
    }


def test_bootstrap_covers_as_it_says() -> None:
    """95 % intervals for the mean of 100 coins hold the truth in about 95 of 100 draws:
    400 of them, three standard errors.
    """
    source = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(400):
        values = (torch.rand(100, generator=source) < 0.4).double().tolist()
        mean, low, high = bootstrap(values, draws=1000)
        held += low <= 0.4 <= high
        assert low <= mean <= high
    assert abs(held / 400 - 0.95) < 3 * (0.95 * 0.05 / 400) ** 0.5 + 0.01


def test_records_name_what_was_measured(tmp_path) -> None:
    file = tmp_path / "results" / "x.json"
    for value in (0, 1):  # the second is into a folder that exists
        write_record(file, "python -m something", dict(value=value), seeds=3)
    record = json.loads(file.read_text())
    assert record["command"] == "python -m something"
    assert record["settings"] == {"seeds": 3} and record["results"] == {"value": 1}
    assert {"date", "processor", "threads", "torch", "transformers", "python"} <= set(
        record["environment"]
    )


def test_unlabelled_particles_are_alive() -> None:
    assert survivors(torch.zeros(1, 4, dtype=torch.long)) == [[{0}, {1}, {2}, {3}]]


def test_common_answers_have_colours_of_their_own_and_rare_ones_share_one() -> None:
    """Size and width grow with the weight, up to four times and to 3.3 times the mean;
    a lineage has the colour of the commonest answer that it led to.
    """
    shares = [0.02, 0.56, 0.12, 0.10, 0.08, 0.06, 0.04, 0.02]
    labels = ["g", "a", "b", "c", "d", "e", None, "a"]
    parents = torch.tensor([[0, 1, 1, 3, 4, 5, 6, 7], range(8)])
    weights = torch.tensor([[1 / 8] * 8, shares]).log()
    axes = Mock()
    assert genealogy(weights, parents, labels, "t", axes) is axes
    a, b, c, d, e, none = COLOURS
    g, dead = "#555555", "#cccccc"
    *marks, ended = [(*m.args, m.kwargs) for m in axes.scatter.call_args_list]
    colours = [(g, "o"), (a, "o"), (dead, "o"), (c, "^"), (d, "D"), (e, "v")]
    own = [*colours, (none, "P"), (a, "o")]
    last = [(b, "s") if look[0] == dead else look for look in own]
    sizes = [54.0] * 8 + [20.4, 174.0, 52.4, 46.0, 39.6, 33.2, 26.8, 20.4]
    for k, (x, y, look) in enumerate(marks[:16]):
        assert (x, y) == (k // 8 + 1, k % 8)
        assert (look["color"], look["marker"]) == (own + last)[k]
        assert look["zorder"] == 3 + (look["color"] != dead)
        assert look["s"] == pytest.approx(sizes[k], abs=1e-3)
    keys = [tuple(look.values()) for _, _, look in marks[16:]]
    told = ("a: 58%", "b: 12%", "c: 10%", "d: 8%", "e: 6%", "no answer: 4%")
    words = [f"{share} of the weight" for share in told]
    assert keys == list(zip(COLOURS, "os^DvP", words, strict=True))
    assert ended == ([], [], dict(color=dead, label="no descendant left"))
    widths = [1.04, 5.8, 2.24, 2.0, 1.76, 1.52, 1.28, 1.04]
    looks = {line.args[1][1]: line.kwargs for line in axes.plot.call_args_list}
    for child, width in enumerate(widths):
        assert looks[child]["linewidth"] == pytest.approx(width, abs=1e-3)
        assert (looks[child]["color"], looks[child]["zorder"]) == (last[child][0], 2)


def test_lines_that_end_are_pale_and_lie_below() -> None:
    axes = Mock()
    genealogy(torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.long), axes=axes)
    looks = [(m.kwargs["color"], m.kwargs["zorder"]) for m in axes.plot.call_args_list]
    alive, dead = (COLOURS[0], 2), ("#cccccc", 1)
    assert looks == [alive, dead, alive, alive]
    labels = [mark.kwargs.get("label") for mark in axes.scatter.call_args_list]
    assert labels[6:] == ["alive: 100% of the weight", "no descendant left"]
    axes.legend.assert_called_once_with(
        loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False
    )
    names = dict(xlabel="step", ylabel="particle", title="")
    axes.set.assert_called_once_with(**names, xticks=range(1, 4))
    axes.invert_yaxis.assert_called_once_with()


def test_a_picture_grows_with_steps_and_particles_up_to_a_width(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = []

    def noted(*given: Any) -> Any:
        made.append(genealogy(*given))
        return made[-1]

    monkeypatch.setattr(plots, "genealogy", noted)
    trace = SimpleNamespace(
        log_weights=torch.zeros(2, 3), ancestors=torch.tensor([[0, 1, 2]] * 2)
    )
    particles = [SimpleNamespace(answer=answer) for answer in ("5", "6", "5")]
    solution = SimpleNamespace(trace=trace, particles=particles, answer="5")
    save_genealogy(solution, tmp_path / "lines.png")
    head = (tmp_path / "lines.png").read_bytes()[16:24]
    inches = 2.5 + 0.9 * 2, 1.5 + 0.2 * 3
    assert struct.unpack(">2I", head) == tuple(round(150 * x) for x in inches)
    [axes] = made
    assert axes.get_title() == "3 particles, answer 5"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels[:2] == ["5: 67% of the weight", "6: 33% of the weight"]
    assert axes.figure.get_layout_engine() is not None  # or the legend is cut off
    wide = genealogy(torch.zeros(12, 2), torch.zeros(12, 2, dtype=torch.long))
    assert wide.figure.get_size_inches().tolist() == [12, 1.9]

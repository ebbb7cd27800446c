"""Lines of descent, and intervals of records."""

import json

import torch

from pfref.plots import genealogy, survivors
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
    write_record(
        tmp_path / "results" / "x.json", "python -m something", dict(value=1), seeds=3
    )
    record = json.loads((tmp_path / "results" / "x.json").read_text())
    assert record["command"] == "python -m something"
    assert record["settings"] == {"seeds": 3} and record["results"] == {"value": 1}
    assert {"date", "processor", "threads", "torch", "transformers", "python"} <= set(
        record["environment"]
    )


def test_unlabelled_particles_are_alive() -> None:
    assert survivors(torch.zeros(1, 4, dtype=torch.long)) == [[{0}, {1}, {2}, {3}]]

"""The page of a run: it agrees with the solution, needs nothing, and trusts no text."""

import functools
import hashlib
import json
import math
import re
from base64 import b64encode
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
import torch

from pfref import LanguageModel, RewardModel, Solution, UserError, solve
from pfref.__main__ import main
from pfref.history import History, Moment, Recorder
from pfref.minimath.problems import load_set
from pfref.settings import Settings
from pfref.solution import Cost, Particle, Trace
from pfref.viewer import page, save, tree
from tests.enumerable import PROBLEM, PROPOSAL, world

TEXTS = [p.problem for p in load_set("minimath500")[:6]]
HARD = next(p.problem for p in load_set("minimath500") if p.level == 5)
VOID = {"meta", "input", "rect", "path", "circle"}
NASTY = "</script><script>alert(1)</script><img src=x onerror='a'>\"&amp; ]]> -->"
STRANGE = "\u202eright to left\x00\x1b[31m\ud800 \u2028 \U0001f600 e\u0301"


class Reader(HTMLParser):
    """Rows of each table as texts, what stands in which tag, and unbalanced tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {}
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.inside.setdefault(self.open[-1], []).append(data)
        if {"td", "th"} & set(self.open) and "span" not in self.open:
            self.tables[-1][-1][-1] += data


@functools.cache
def shipped() -> tuple[LanguageModel, RewardModel]:
    return LanguageModel.load("minimath-small"), RewardModel.load("minimath-prm")


@functools.cache
def run(method: str = "filter", **options: Any) -> tuple[History, Solution, Settings]:
    options = dict(particles=8, seed=1) | options
    recorder = Recorder()
    found = solve(HARD, *shipped(), method=method, watch=recorder, **options)
    [history] = recorder.histories([found])
    return history, found, Settings().but(method=method, **options)


def assert_agrees(history: History, solution: Solution) -> None:
    """Of the one population that there is: with the trace and the particles."""
    t, moments = solution.trace, history.moments
    assert [list(m.log_weights) for m in moments] == t.log_weights.tolist()
    assert [list(m.ancestors) for m in moments] == t.ancestors.tolist()
    assert [m.ess for m in moments] == t.ess.tolist()
    assert [m.resampled for m in moments] == t.resampled.tolist()
    for n, particle in enumerate(solution.particles):
        last = moments[-1]
        assert last.texts[n] == particle.text
        assert last.finished[n] == particle.finished
        assert last.weights[n] == pytest.approx(particle.weight)
        assert last.log_odds[n] in (particle.reward, math.inf)
        # What each ancestor added, joined, is what the particle wrote.
        parts, place = [], n
        for k in range(len(moments) - 1, -1, -1):
            parts.append(history.added(k)[place])
            place = history.parents(k)[place] or 0
        assert "".join(reversed(parts)) == particle.text
    if solution.chosen:
        assert solution.particles[history.chosen] is solution.chosen


def test_the_history_is_the_traces_though_populations_are_out_of_step() -> None:
    recorder, uneven = Recorder(), []

    def watch(step: Any) -> None:
        recorder(step)
        uneven.append(not step.stepped[step.active.any(1)].all())

    found = solve(TEXTS, *shipped(), 4, threshold=1.0, watch=watch, batch=24)
    assert any(uneven)
    for history, solution in zip(recorder.histories(found), found, strict=True):
        assert_agrees(history, solution)
    assert recorder.runs == []


def test_a_population_that_ended_with_its_resampling_has_its_last_moment() -> None:
    recorder, ended = Recorder(), 0
    for seed in range(3):
        found = solve(
            [PROBLEM] * 5,
            *world(),
            particles=3,
            seed=seed,
            watch=recorder,
            threshold=1.0,
            tau=0.25,
            proposal=PROPOSAL,
        )
        for history, solution in zip(recorder.histories(found), found, strict=True):
            assert_agrees(history, solution)
            ended += len(history.moments) > 1 and not any(history.added(-1))
    assert ended


@pytest.mark.parametrize(
    "method", ["greedy", "samples", "greedy-search", "beam", "dvts", "gibbs"]
)
def test_every_method_shows_the_population_of_its_answer(method: str) -> None:
    history, found, settings = run(method, particles=16, seed=2)
    own = slice(history.first, history.first + history.particles)
    assert [p.text for p in found.particles[own]] == [*history.moments[-1].texts]
    assert found.particles[history.first + history.chosen] is found.chosen
    last = Reader(page(history, found, settings)).tables[-1][1:]
    assert len(last) == history.particles
    assert f"finished, answer {found.answer}" in last[history.chosen]
    assert ("Weight" in page(history, found)) == (found.log_evidence is not None)
    if method in ("dvts", "gibbs"):
        assert "; population" in page(history, found, settings)
        assert 0 < history.first < len(found.particles) - history.particles


def test_runs_that_differ_are_no_history() -> None:
    recorder, (_, found, _) = Recorder(), run()
    with pytest.raises(UserError, match="no one history"):
        recorder.histories([found])
    for n in (2, 3):
        solve(TEXTS[0], *shipped(), n, watch=recorder)
    with pytest.raises(UserError, match="no one history"):
        recorder.histories([found])


def test_every_step_and_particle_is_there_without_the_script() -> None:
    history, found, settings = run()
    text = page(history, found, settings, {"model": "minimath-small"})
    reader = Reader(text)
    assert not reader.open and len(reader.tables) == len(history.moments) > 2
    for t, table in enumerate(reader.tables):
        assert f'<h3 id="step-{t + 1}">Step {t + 1} of {len(reader.tables)}<' in text
        now, names = history.moments[t], table[0]
        assert len(table) == 1 + history.particles
        for n, row in enumerate(table[1:]):
            cells = dict(zip(names, row, strict=True))
            parent = history.parents(t)[n]
            assert cells["Particle"].strip() == str(n + 1)
            assert cells["Parent"] == ("none" if parent is None else str(parent + 1))
            assert cells["Text"] == (history.added(t)[n].strip("\n") or "(none)")
            assert cells["Weight"] == f"{now.weights[n]:.1%}"
            r = 1 / (1 + math.exp(-now.log_odds[n]))
            assert cells["r"] in (f"{r:.3f}", "<0.001", ">0.999")
            if t + 1 < len(reader.tables):
                heirs = [k + 1 for k, own in enumerate(now.ancestors) if own == n]
                assert cells["Children"] == (", ".join(map(str, heirs)) or "none")
    tags = [tag for tag, own in reader.tags if "hidden" in own]
    assert tags == ["div"]  # the bar, which needs the script
    assert "minimath-small" in text and "threshold" in text and found.answer in text
    ess = f"Effective sample size {history.moments[0].ess:.1f} of 8."
    assert ess in reader.inside["p"][3]


def test_the_picture_has_every_particle_and_the_line_of_the_answer() -> None:
    history, found, _ = run()
    text = page(history, found)
    steps, size = len(history.moments), history.particles
    assert len(re.findall('class="(?:dot|cross)', text)) == steps * size
    assert text.count('class="edge') == (steps - 1) * size
    assert text.count('class="edge line"') == steps - 1
    assert text.count('<tr class="line">') == text.count("★") == steps
    place, line = history.chosen, [history.chosen]
    for before in reversed(history.moments[:-1]):
        place = before.ancestors[place]
        line.append(place)
    told = ", ".join(str(n + 1) for n in reversed(line))
    assert f"line, by places: {told}.</desc>" in text
    assert '<svg role="img" aria-labelledby="name what"' in text


def test_every_mark_stands_in_its_column_and_row() -> None:
    history, _, _ = run()
    tags = Reader(tree(history)).tags

    def numbers(tag: str, *names: str, **own: str) -> list[list[float]]:
        return [
            [float(has[name] or 0) for name in names]
            for kind, has in tags
            if kind == tag and has.items() >= own.items()
        ]

    bands = numbers("rect", "x", "width", **{"class": "band"})
    columns = [x + width / 2 for x, width in bands]
    assert len(columns) == len(history.moments) and columns == sorted(columns)
    # A number stands four points lower than the middle of its row.
    labels = {"text-anchor": "end"}
    rows = [y - 4 for _, y in numbers("text", "x", "y", **labels)]
    assert all(x < bands[0][0] for x, _ in numbers("text", "x", "y", **labels))
    step = rows[1] - rows[0]
    assert rows == [rows[0] + step * n for n in range(history.particles)]
    ((width, height),) = numbers("svg", "width", "height")
    assert (width, height) == (sum(bands[-1]), rows[-1] + step)
    marks = [(x, y) for x, y, _ in numbers("circle", "cx", "cy", "r")]
    assert {x for x, _ in marks} <= {*columns} and {y for _, y in marks} <= {*rows}
    first = [r for x, _, r in numbers("circle", "cx", "cy", "r") if x == columns[0]]
    weights = [w * history.particles for w in history.moments[0].weights]
    areas = [max(2.5, min(9, 4 * math.sqrt(w))) for w in weights]
    assert first == pytest.approx(areas, abs=0.051)
    lines = [re.findall(r"[\d.]+", has["d"] or "") for _, has in tags if "d" in has]
    edges = {tuple(map(float, line)) for line in lines if len(line) == 4}
    for t in range(1, len(history.moments)):
        for n, parent in enumerate(history.parents(t)):
            if parent is not None:
                a, b = columns[t - 1], rows[parent]
                assert (a, b, columns[t], rows[n]) in edges


def test_the_page_loads_nothing_and_a_browser_would_not() -> None:
    text = page(*run())
    free = text.replace("http-equiv", "")
    for word in ("http", "src=", "url(", "@import", "eval(", "<link", "style="):
        assert word not in free
    [policy] = re.findall('content="(default-src[^"]*)"', text)
    assert policy.startswith("default-src 'none'; ")
    for tag in ("script", "style"):
        [inside] = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_the_same_run_has_the_same_page() -> None:
    one = page(*run())
    run.cache_clear()
    assert page(*run()) == one


def made_up(*texts: str) -> tuple[History, Solution]:
    """Two moments of particles that all wrote their text at once; the first is cut off
    by a limit, and nothing is scored.
    """
    n = len(texts)
    now = Moment(
        texts=texts,
        log_weights=(-math.inf, *[0.0] * (n - 1)),
        log_odds=(math.inf,) * n,
        finished=(False, *[True] * (n - 1)),
        truncated=(True, *[False] * (n - 1)),
        ess=n - 1.0,
        resampled=False,
        ancestors=tuple(range(n)),
    )
    particles = [Particle((text,), text, 1 / n, 0.0, True) for text in texts]
    none = torch.zeros(1, n)
    found = Solution(
        problem=texts[-1],
        answer=texts[-1],
        chosen=particles[-1],
        particles=particles,
        votes={texts[-1]: 1.0, None: 0.0},
        log_evidence=0.0,
        trace=Trace(none, none[:, 0], none.long(), none.bool(), none[:, 0].bool()),
        cost=Cost(1, 2, 3, 1, 4, 5, 0.1),
    )
    return History((now, now), 0, n - 1, True), found


@pytest.mark.parametrize("text", [NASTY, STRANGE, "$title ${policy} $$ $1", "<"])
def test_text_of_a_model_is_text(text: str, tmp_path) -> None:
    history, found = made_up("cut", text)
    settings = Settings(system=text)
    whole = page(history, found, settings, {"model": text})
    plain = Reader(page(*made_up("cut", "so 5"), Settings(system="5"), {"model": "5"}))
    reader = Reader(whole)
    assert not reader.open
    assert [tag for tag, _ in reader.tags] == [tag for tag, _ in plain.tags]
    assert len(reader.inside["script"]) == 1
    kept = re.sub("[\u202e\x00\x1b\ud800]", "\ufffd", text)
    row = reader.tables[0][2]
    assert row[2] == kept and row[3] == "not scored"
    assert reader.tables[0][1][5] == "cut off by a limit"
    save(tmp_path / "run.html", whole)
    assert (tmp_path / "run.html").read_bytes().decode("utf-8") == whole


def test_without_a_solution_the_page_says_so() -> None:
    history, found = made_up("cut", "off")
    none = replace(found, chosen=None, answer=None, votes={})
    text = page(replace(history, chosen=None), none)
    assert "none is left" in text and "★" not in text and not Reader(text).open


def test_on_the_command_line(tmp_path, capsys) -> None:
    (tmp_path / "p.txt").write_text(f"nonsense\n{TEXTS[1]}\n{TEXTS[2]}\n")
    html, plot = tmp_path / "run.html", tmp_path / "tree.png"
    flags = ["--file", str(tmp_path / "p.txt"), "-n", "4", "--json", "--quiet"]
    flags += ["--html", str(html), "--batch", "4"]
    assert main(["solve", *flags, "--plot", str(plot)]) == 2  # the first is nonsense
    out, err = capsys.readouterr()
    assert "run.html shows problem 2, the first that was solved" in err
    assert plot.read_bytes()[:4] == b"\x89PNG"
    record = json.loads(out.splitlines()[0])
    text = html.read_text(encoding="utf-8")
    last = Reader(text).tables[-1][1:]
    for row, particle in zip(last, record["particles"], strict=True):
        assert row[-1].endswith(f"answer {particle['answer']}")
    assert "minimath-small" in text and "minimath-prm" in text
    html.unlink()
    assert main(["solve", *flags]) == 2 and html.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--html", "/no/such/folder/run.html"], "no folder"),
        (["--html", "."], "is a folder"),
        (["--html", "run.html", "--method", "adaptive"], "--html shows one run"),
    ],
)
def test_what_cannot_be_shown_is_said_before_the_run(capsys, flags, message) -> None:
    assert main(["solve", TEXTS[0], "--model", "/no/such/folder", *flags]) == 2
    err = capsys.readouterr().err
    assert message in err and len(err.splitlines()) == 1


def test_a_file_that_cannot_be_written_is_one_line(tmp_path) -> None:
    with pytest.raises(UserError, match="cannot write"):
        save(tmp_path / "no" / "run.html", "")

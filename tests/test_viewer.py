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
from pfref.viewer import (
    descent,
    facts,
    listed,
    mark,
    page,
    policy,
    rounded,
    rows,
    save,
    section,
    shown,
    summary,
    told,
    tree,
    written,
)
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


def small(weighed: bool = True) -> tuple[History, Solution]:
    """Two particles in three moments: the first one's children, of which the second has
    both places at the end; it finishes in one and is cut off in the other.
    """
    no, free = -math.inf, (False, False)
    texts = (("a ", "b"), ("a c", "a d "), ("a d 5", "a d e"))
    weights = ((0.0, no), (0.0, math.log(3)), (0.0, no))
    odds = ((0.0, no), (-9.0, 9.0), (2.0, math.inf))
    done, cut = (free, free, (True, False)), (free, free, (False, True))
    ess, parents, again = (
        (1.0, 1.64, 1.0),
        ((0, 0), (1, 1), (0, 1)),
        (True, True, False),
    )
    given = zip(texts, weights, odds, done, cut, ess, again, parents, strict=True)
    moments = tuple(Moment(*own) for own in given)
    particles = [
        Particle(("a d ", "5"), "5", 1.0, 2.0, True),
        Particle(("a d ", "e"), None, 0.0, no, False),
    ]
    found = replace(
        made_up("cut", "2+3?")[1],
        answer="5",
        chosen=particles[0],
        particles=particles,
        votes={"5": 0.75, None: 0.25},
    )
    return History(moments, 0, 0, weighed), found


@pytest.mark.parametrize(
    "r, words",
    [
        (None, "not scored"),
        (0.0, "0.000"),
        (0.0009, "&lt;0.001"),
        (0.001, "0.001"),
        (0.999, "0.999"),
        (0.9991, "&gt;0.999"),
    ],
)
def test_a_score_is_never_rounded_to_0_or_1(r: float | None, words: str) -> None:
    assert rounded(r) == words


def test_text_keeps_its_lines_and_loses_what_turns_it_around() -> None:
    turns = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
    assert shown(turns + "\r\x7f\udfff") == 12 * "\ufffd"
    assert shown("a\n\tb \u05d0 \u0634 <'>") == "a\n\tb \u05d0 \u0634 &lt;&#x27;&gt;"
    assert written("\n  x\ny\n\n", "none") == "<bdi>  x\ny</bdi>"
    assert written("\n \n", "none") == written("", "none") == "none"
    assert listed({"<": 1, "b": ""}) == (
        '<dt>&lt;</dt><dd class="text"><bdi>1</bdi></dd>\n'
        '<dt>b</dt><dd class="text">none</dd>'
    )


def test_the_policy_names_the_one_script_and_style() -> None:
    assert policy("<style>b</style> <script>a</script>") == (
        "default-src 'none'; "
        "script-src 'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs='; "
        "style-src 'sha256-PiPoFgA5WUoziU9lZOGxNIu9egCI1CxKy3PurtWcAJ0='; "
        "base-uri 'none'"
    )


def test_facts_of_a_run() -> None:
    history, found = small()
    assert facts(history, found, Settings(method="gibbs")) == {
        "Problem": "2+3?",
        "Answer": "5",
        "Votes by weight": "5 (75%), no answer (25%)",
        "Method": "gibbs",
        "Particles": "2, in 3 steps",
    }
    trees = replace(found, particles=found.particles * 2)
    assert facts(replace(small(False)[0], first=2), trees, None) == {
        "Problem": "2+3?",
        "Answer": "5",
        "Particles": "2, in 3 steps; population 2 of 2, which gave the answer",
    }


def test_settings_and_cost_are_told_and_what_is_unset_is_not() -> None:
    _, found = small()
    cost = {"tokens": "1 prompt + 2 generated, 3 scored"}
    assert told(replace(found, log_evidence=None), None, None) == cost
    models = {"prm_family": "trl"}
    names = told(replace(found, log_evidence=-1.234), Settings(system="a\nb"), models)
    known = {
        "prm family": "trl",
        "system": r"'a\nb'",
        "choose": "vote",
        "resampling": "systematic",
        "temperatures": (1.0, 2.0),
        "delimiter": r"'\n\n'",
        "max step tokens": 1024,
        "log evidence": "-1.23",
    } | cost
    assert names | known == names
    assert not {"proposal", "anneal", "step tokens", "target power"} & set(names)
    assert told(found, Settings(choose="draw"), None)["choose"] == "draw"


def test_a_mark_for_each_state() -> None:
    cross = '<path class="cross" d="M46 26l8 8m0 -8l-8 8"/>'
    assert mark(50, 30, 4.0, "ruled out", "line") == cross
    assert mark(50, 30, 4.0, "cut off by a limit", "line") == cross
    assert mark(50, 30, 4.0, "unfinished", "ended") == (
        '<circle class="dot ended" cx="50" cy="30" r="4.0"/>'
    )
    assert mark(50, 30, 4.0, "finished", "line") == (  # 7.09 ** 2 == pi * 4 ** 2
        '<rect class="dot line" x="46.5" y="26.5" width="7.1" height="7.1"/>'
    )


def test_a_small_picture() -> None:
    history, _ = small()
    end, middle = 'text-anchor="end"', 'y="24" text-anchor="middle"'
    band = '<rect class="band" x="{}" y="0" width="64" height="90"/>'
    assert tree(history).splitlines() == [
        '<svg role="img" aria-labelledby="name what" width="240" height="90" '
        'viewBox="0 0 240 90">',
        '<title id="name">Who descends from whom</title>',
        f'<desc id="what">{descent(history)}</desc>',
        band.format(48) + f'<text x="80" {middle}>step 1</text>',
        band.format(112) + f'<text x="144" {middle}>step 2</text>',
        band.format(176) + f'<text x="208" {middle}>step 3</text>',
        f'<text x="40" y="54" {end}>1</text>',
        f'<text x="40" y="74" {end}>2</text>',
        '<path class="edge ended" d="M80 50L144 50"/>',
        '<path class="edge alive" d="M144 70L208 70"/>',
        '<path class="edge line" d="M80 50L144 70"/>',
        '<path class="edge line" d="M144 70L208 50"/>',
        '<circle class="dot line" cx="80" cy="50" r="5.7"/>',
        '<path class="cross" d="M76 66l8 8m0 -8l-8 8"/>',
        '<circle class="dot ended" cx="144" cy="50" r="2.8"/>',
        '<circle class="dot line" cx="144" cy="70" r="4.9"/>',
        '<rect class="dot line" x="203.0" y="45.0" width="10.0" height="10.0"/>',
        '<path class="cross" d="M204 66l8 8m0 -8l-8 8"/>',
        "</svg>",
    ]


def test_marks_are_neither_too_small_nor_too_large() -> None:
    history, _ = small(weighed=False)
    radii = re.findall(r' r="(.*?)"', tree(history))  # of r = 0.5, almost 0, almost 1
    assert radii == ["4.0", "2.5", "5.7"]
    size, no = 8, (False,) * 8
    weights = (0.0, *[-math.inf] * 7)
    now = Moment(("",) * 8, weights, (0.0,) * 8, no, no, 1.0, False, tuple(range(size)))
    assert re.findall(r' r="(.*?)"', tree(History((now,), 0, 0, True))) == ["9.0"]
    unscored = replace(now, log_odds=(math.inf,) * size)
    assert tree(History((unscored,), 0, 0, False)).count('r="2.5"') == size


def test_the_picture_in_words() -> None:
    history, _ = small()
    all_of_them = "All 2 particles of the last step descend from 1 of the first step."
    line = " The chosen solution's line, by places: 1, 2, 1."
    assert descent(history) == all_of_them + line
    assert descent(replace(history, chosen=None)) == all_of_them


def test_a_step_has_a_heading_and_a_table() -> None:
    star = (
        ' <span aria-hidden="true">★</span>'
        '<span class="unseen">, on the chosen line</span>'
    )
    names = ("Particle", "Parent", "Text", "r", "Weight", "State")
    heads = "".join(f'<th scope="col">{name}</th>' for name in names)
    assert section(*small(), 2).splitlines() == [
        '<section class="step" aria-labelledby="step-3">',
        '<h3 id="step-3">Step 3 of 3</h3>',
        "<p>Effective sample size 1.0 of 2. This is the last step.</p>",
        '<div class="scroll" role="region" aria-label="Table of step 3" tabindex="0">',
        "<table><caption>The particles of step 3</caption>",
        f"<thead><tr>{heads}</tr></thead><tbody>",
        f'<tr class="line"><th scope="row">1{star}</th><td>2</td><td><bdi>5</bdi></td>'
        "<td>0.881</td><td>100.0%</td><td><bdi>finished, answer 5</bdi></td></tr>",
        '<tr><th scope="row">2</th><td>2</td><td><bdi>e</bdi></td>'
        "<td>not scored</td><td>0.0%</td><td><bdi>cut off by a limit</bdi></td></tr>",
        "</tbody></table></div></section>",
    ]
    assert rows(*small(), 1, False)[0] == (
        '<tr><th scope="row">1</th><td>1</td><td><bdi>c</bdi></td><td>&lt;0.001</td>'
        "<td>25.0%</td><td><bdi>unfinished</bdi></td><td>none</td></tr>"
    )
    [table] = Reader(section(*small(weighed=False), 0)).tables
    assert table == [
        ["Particle", "Parent", "Text", "r", "State", "Children"],
        ["1 ", "none", "a ", "0.500", "unfinished", "1, 2"],
        ["2", "none", "b", "0.000", "ruled out", "none"],
    ]


def test_what_a_step_does_to_the_population() -> None:
    history, _ = made_up("cut", "b", "c")
    kept, first = "Effective sample size 2.0 of 3. ", history.moments[0]

    def words(ancestors: tuple[int, ...], weighed: bool = True) -> str:
        now = replace(first, resampled=True, ancestors=ancestors)
        return summary(History((now, first), 0, 0, weighed), 0)

    assert summary(history, 0) == f"{kept}Not resampled: every particle goes on."
    assert words((1, 2, 2)) == (
        f"{kept}Resampled: 2 particles go on, 1 ends. None has more than 2 children."
    )
    assert words((1, 1, 1), weighed=False) == (
        "1 particle goes on, 2 end. None has more than 3 children."
    )
    assert words((1, 2, 0), weighed=False) == (
        "3 particles go on, 0 end. None has more than 1 child."
    )


def test_the_page_explains_weights_where_there_are_any() -> None:
    history, found = small()
    found = replace(found, problem=f"{'a' * 59}bc")
    text = page(history, found)
    assert f"<title>Step by step: {'a' * 59}b</title>" in text
    assert '<div class="text block"><bdi>a d 5</bdi></div>' in text
    assert 'min="1" max="3" value="1"' in text
    assert "the larger its weight. Circles" in text
    assert "between 0 and 1. The weight of a particle grows" in text
    assert f"</figure>\n<p>{descent(history)}</p>" in text
    assert f"{section(history, found, 0)}\n{section(history, found, 1)}\n" in text
    text = page(small(weighed=False)[0], replace(found, chosen=None))
    assert '<div class="text block">none is left</div>' in text
    assert "the larger its r. Circles" in text
    assert "go on as several copies; the others end.</p>" in text


def test_a_particle_is_ruled_out_by_no_weight_or_by_no_reward() -> None:
    weighed, search = small()[0], small(weighed=False)[0]
    last = replace(weighed.moments[2], truncated=(False, False))
    states = [
        replace(history, moments=(last,)).state(0, 1) for history in (weighed, search)
    ]
    assert states == ["ruled out", "unfinished"]
    assert [search.state(0, 1), search.state(2, 0)] == ["ruled out", "finished"]


def test_the_history_is_of_the_chosen_particle_and_not_of_its_twin() -> None:
    recorder, (history, found) = Recorder(), small()
    one, two = history.moments[:2]
    twins = [replace(found.particles[0]) for _ in range(4)]
    solution = replace(found, particles=twins, chosen=twins[3])
    for runs in ([[[one], [two]]], [[[one]], [[two]]]):  # of one run, of two
        recorder.runs = runs
        assert recorder.histories([solution]) == [History((two,), 2, 1, True)]
    recorder.runs = [[[one], [two]]]
    none = replace(found, particles=twins, chosen=None, log_evidence=None)
    assert recorder.histories([none]) == [History((one,), 0, None, False)]
    recorder.runs = [[[one]]]
    with pytest.raises(UserError, match="no one history"):
        recorder.histories([])

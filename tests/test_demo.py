"""`make demo` on two problems."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pfref import demo, solve


def test_the_demonstration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: list[tuple[str, str | None, int]] = []

    def noted(*given: Any, **options: Any) -> Any:
        asked.append((options["method"], options.get("choose"), given[3]))
        return solve(*given, **options)

    monkeypatch.setattr(demo, "solve", noted)
    picture = tmp_path / "lines.png"
    words = ["demo", "--rows", "2", "-n", "2", "--plot", str(picture)]
    monkeypatch.setattr(sys, "argv", words)
    demo.main()
    told = capsys.readouterr().out
    assert asked == [
        ("samples", "argmax", 2),
        ("greedy-search", None, 2),
        ("filter", None, 2),
    ]
    assert told.startswith("2 problems of MiniMATH-500")
    for name in ("greedy ", "best of 2 ", "greedy search, 2 ", "filter, 2 "):
        rows = [line for line in told.splitlines() if line.startswith(name)]
        assert rows and "%" in rows[0] and " to " in rows[0], name
    assert "accuracy  95 % interval" in told
    assert picture.read_bytes().startswith(b"\x89PNG")


def pretended(monkeypatch: pytest.MonkeyPatch, **reached: range) -> list[Any]:
    """Problems whose right answers are their numbers, and methods that reach those of a
    range only; what was asked for is noted. Of each method's solutions number 5 took
    most steps, and of the filter's with an answer number 12.
    """
    asked: list[Any] = []
    every = [SimpleNamespace(problem=f"P{k}", answer=str(k)) for k in range(300)]

    def found(k: int, method: str) -> SimpleNamespace:
        hit = k in reached[method]
        return SimpleNamespace(
            answer=str(k) if hit else None,
            chosen=SimpleNamespace(text=f"It is {k}.") if hit else None,
            cost=SimpleNamespace(generated_tokens=7),
            trace=SimpleNamespace(ess=[1.0] * {5: 9, 12: 4}.get(k, 2)),
        )

    def solved(texts: list[str], *given: Any, method: str, **options: Any) -> Any:
        asked.append((len(texts), *given, method, options))
        return [found(k, method.replace("-", "_")) for k in range(len(texts))]

    clock = iter([1.0, 2.0, 4.0, 6.0, 9.0, 12.0, 16.0, 20.0])
    right = [str(k) if k in reached["greedy"] else None for k in range(300)]
    for name, value in dict(
        LanguageModel=SimpleNamespace(load=str),
        RewardModel=SimpleNamespace(load=str),
        load_set=dict(minimath500=every).get,
        greedy=lambda texts, lm: right[: len(texts)] if lm == "minimath-small" else 0,
        solve=solved,
        bootstrap=lambda hits: (sum(hits) / len(hits), min(hits), max(hits)),
        save_genealogy=lambda solution, file: asked.append((solution.answer, file)),
        time=SimpleNamespace(perf_counter=lambda: next(clock)),
    ).items():
        monkeypatch.setattr(demo, name, value)
    return asked


def test_the_demonstration_in_full(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = pretended(
        monkeypatch,
        greedy=range(20),
        samples=range(10),
        greedy_search=range(10, 70),
        filter=range(100),
    )
    monkeypatch.setattr(sys, "argv", ["demo"])
    demo.main()
    own = (200, "minimath-small", "minimath-prm", 16)
    assert asked == [
        (*own, "samples", dict(seed=0, progress="best of 16", choose="argmax")),
        (*own, "greedy-search", dict(seed=0, progress="greedy search, 16")),
        (*own, "filter", dict(seed=0, progress="filter, 16")),
        ("12", Path("genealogy.png")),  # the longest that best of 16 did not solve
    ]
    assert capsys.readouterr().out.splitlines() == [
        "200 problems of MiniMATH-500, levels 1 to 5, the same two models throughout",
        "",
        "method                   accuracy  95 % interval    generated tokens  seconds",
        "greedy                      10.0%  0.0% to 100.0%                         1.0",
        "best of 16                   5.0%  0.0% to 100.0%               1400      2.0",
        "greedy search, 16           30.0%  0.0% to 100.0%               1400      3.0",
        "filter, 16                  50.0%  0.0% to 100.0%               1400      4.0",
        "",
        "filter, 16 minus best of 16, problem by problem: +45.0%, 95 % interval +0.0% "
        "to +100.0%.",
        "filter, 16 minus greedy search, 16, problem by problem: +20.0%, 95 % interval "
        "+0.0% to +100.0%.",
        "",
        "P12",
        "",
        "It is 12.",
        "",
        "Its 16 particles are drawn in genealogy.png.",
    ]


def test_a_demonstration_in_which_the_filter_gains_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    none = range(0)
    methods = dict(greedy=none, samples=none, greedy_search=none, filter=none)
    asked = pretended(monkeypatch, **methods)
    words = ["demo", "--rows", "8", "--particles", "3", "--seed", "4"]
    monkeypatch.setattr(sys, "argv", words)
    demo.main()
    assert [(run[0], run[3], run[5]["seed"]) for run in asked[:3]] == [(8, 3, 4)] * 3
    told = capsys.readouterr().out
    assert "\n\nP5\n\nno particle is left: every one" in told
    assert told.endswith("\n\nIts 3 particles are drawn in genealogy.png.\n")

"""`solve` and the reasoning model as users call them."""

import functools
import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from pfref import LanguageModel, Proposal, RewardModel, Solution, UserError, solve
from pfref.answers import boxed
from pfref.baselines import best_of, greedy, independent, majority
from pfref.minimath.problems import load_set
from pfref.prm import AGGREGATIONS
from pfref.randomness import generators
from pfref.reasoning import Reasoning, odds, score, telescoping
from pfref.settings import Settings
from pfref.smc import particle_filter
from pfref.solver import in_batches
from pfref.study.tasks import TASKS
from pfref.weights import normalise
from tests.enumerable import PROBLEM, PROPOSAL, world

TEXTS = [p.problem for p in load_set("minimath500")[:8]]
HARD = [p.problem for p in load_set("minimath500") if p.level >= 4]
INF, TARGETS = float("inf"), ("target_temperature", "target_power")


def read(solution: Any) -> list[tuple]:
    return [(p.text, p.answer, p.finished) for p in solution.particles]


@functools.cache
def shipped() -> tuple[LanguageModel, RewardModel]:
    return LanguageModel.load("minimath-small"), RewardModel.load("minimath-prm")


@pytest.mark.parametrize("look", [1, 8])
def test_each_token_once_with_resampling_at_every_step(look: int) -> None:
    """Counted inside both models' forward: prompts once a problem, every generated
    token once, every judged token once.
    """
    lm, prm = world()
    lm = LanguageModel(lm.model, lm.tokenizer)
    lm.look = look
    seen, works = {"lm": 0, "prm": 0}, []
    hooks = [
        model.register_forward_pre_hook(
            lambda m, a, k, name=name: seen.__setitem__(
                name, seen[name] + k["input_ids"].numel()
            ),
            with_kwargs=True,
        )
        for name, model in (("lm", lm.model), ("prm", prm.body))
    ]
    found: Any = solve(
        [PROBLEM] * 3,
        lm,
        prm,
        8,
        proposal=PROPOSAL,
        threshold=1.0,
        watch=lambda step: works.append(step.state.paths.work),
    )
    for hook in hooks:
        hook.remove()
    assert all(len(s.trace.ess) > 1 for s in found)
    prompts = sum(s.cost.prompt_tokens for s in found)
    generated = sum(s.cost.generated_tokens for s in found)
    assert works[-1].cache.tokens == prompts + generated
    assert seen["lm"] == prompts + works[-1].fed_slots
    assert (works[-1].fed_slots == generated) == (look == 1)
    scored = sum(s.cost.scored_tokens for s in found)
    assert seen["prm"] >= scored  # equal but for padding to the longest step
    for one in found:
        assert one.cost.scored_prompt_tokens == len(prm.prompt(one.problem))
    if look == 1:
        assert found[0].cost.lm_calls == works[-1].cache.calls


@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_same_particles_alone_and_among_seven_others(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        lm, prm = shipped()
        together = solve(TEXTS, lm, prm, 6, seed=4, threshold=1.0)
        for k in (0, 3):
            alone = solve(TEXTS[k], lm, prm, 6, seed=4, threshold=1.0)
            assert read(alone) == read(together[k])
            assert alone.log_evidence == pytest.approx(
                together[k].log_evidence, abs=1e-4
            )
    finally:
        torch.set_num_threads(before)


def test_batches_change_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Two problems a batch, or one, as the bar shows them: the same particles, but
    other passes.
    """
    lm, prm = world()
    populations: list[int] = []
    together = solve([PROBLEM] * 5, lm, prm, 8, proposal=PROPOSAL)
    for batch, size, last in ((16, 2, 1), (7, 1, 1)):
        populations.clear()
        found = solve(
            [PROBLEM] * 5,
            lm,
            prm,
            8,
            proposal=PROPOSAL,
            batch=batch,
            progress="thinking",
            watch=lambda step: populations.append(step.state.paths.shape[0]),
        )
        assert [read(s) for s in found] == [read(s) for s in together]
        assert (
            populations[0] == size
            and populations[-1] == last
            and set(populations) == {size, last}
        )
        assert "thinking:" in (bar := capsys.readouterr().err) and "/5" in bar
    solve([PROBLEM], lm, prm, 8, proposal=PROPOSAL)
    assert not capsys.readouterr().err


def test_a_bad_problem_is_found_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm, prm = world()
    steps: list[object] = []
    with pytest.raises(UserError, match="leaves no room"):
        solve(
            [PROBLEM, PROBLEM, "a" * 70],
            lm,
            prm,
            4,
            proposal=PROPOSAL,
            batch=4,
            watch=steps.append,
        )
    monkeypatch.setattr(prm, "context", 10)
    with pytest.raises(UserError, match="the reward model's context is 10"):
        solve(
            [PROBLEM, PROBLEM, "a" * 20],
            lm,
            prm,
            4,
            proposal=PROPOSAL,
            batch=4,
            watch=steps.append,
        )
    assert not steps


def test_seeds_matter_and_repeat() -> None:
    lm, prm = world()
    a, b, c = (
        solve(PROBLEM, lm, prm, 16, proposal=PROPOSAL, seed=s) for s in (1, 1, 2)
    )
    assert read(a) == read(b) != read(c)
    twice = solve([PROBLEM, PROBLEM], lm, prm, 16, proposal=PROPOSAL, seed=1)
    assert read(twice[0]) == read(a) != read(twice[1])
    number: Any = np.int64(1)
    assert read(solve(PROBLEM, lm, prm, 16, proposal=PROPOSAL, seed=number)) == read(a)


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_problems_out_of_step_are_what_they_are_alone(threshold: float) -> None:
    """Step by step: a population's trace has its own steps only, however many the
    batch takes; seen seldom too.
    """
    lm, prm = shipped()
    seldom = LanguageModel(lm.model, lm.tokenizer)
    seldom.look, seldom.spare = 8, 0.25
    texts, mixed = TEXTS[:4], [0]

    def watch(step: Any) -> None:
        mixed[0] += bool(step.stepped.any() and not step.stepped.all())

    together = solve(
        texts, seldom, prm, 6, seed=2, threshold=threshold, watch=watch, tau=3.0
    )
    assert mixed[0] > 3
    for k in (0, 2):
        alone = solve(texts[k], lm, prm, 6, seed=2, threshold=threshold, tau=3.0)
        assert read(alone) == read(together[k])
        for name in ("ess", "log_weights"):
            a, b = getattr(alone.trace, name), getattr(together[k].trace, name)
            torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
        for name in ("ancestors", "active"):
            assert torch.equal(
                getattr(alone.trace, name), getattr(together[k].trace, name)
            )
        assert alone.cost.generated_tokens == together[k].cost.generated_tokens
        assert alone.cost.scored_tokens == together[k].cost.scored_tokens


def test_potentials() -> None:
    z, before = (
        torch.tensor([2.0, -30.0], dtype=torch.float64),
        torch.tensor([torch.inf, 1.0], dtype=torch.float64),
    )
    r = torch.sigmoid(z)
    assert torch.allclose(odds(z, before), (r / (1 - r)).log())
    assert torch.allclose(score(z, before), r.log())
    assert torch.allclose(telescoping(z, before), r.log() - torch.sigmoid(before).log())


def test_telescoping_weights_are_the_last_score() -> None:
    """Without resampling, the product of r_t / r_t-1 is r_T: for every finished
    particle.
    """
    lm, prm = world()
    run = particle_filter(
        Reasoning(lm, prm, [PROBLEM], PROPOSAL, "telescoping"),
        64,
        generators(0, 1),
        threshold=0.0,
    )
    state, done = run.last.state, run.last.state.finished
    assert torch.allclose(
        run.last.log_weights[0][done],
        torch.nn.functional.logsigmoid(state.z[done]),
        atol=1e-9,
    )
    assert (run.last.log_weights[0][~done] == -torch.inf).all()


def rewards(solution: Solution) -> list[float]:
    return [particle.reward for particle in solution.particles]


def reward_of(prm: RewardModel, text: str, steps: tuple[str, ...], name: str) -> float:
    judgement = prm.start([text], 1)
    for k in range(len(steps)):
        everyone = torch.ones(1, dtype=torch.bool)
        prm.extend(judgement, everyone, [steps[: k + 1]], name)
    return float(prm.log_odds(judgement, name))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_rewards_do_not_depend_on_the_batch(aggregation: str) -> None:
    """A particle that has stopped keeps its reward while others of its batch take more
    steps.
    """
    lm, prm = shipped()
    together = solve(TEXTS[:4], lm, prm, 4, seed=1, aggregation=aggregation)
    assert len({len(s.trace.ess) for s in together}) > 1
    for k in (0, 3):
        alone = solve(TEXTS[k], lm, prm, 4, seed=1, aggregation=aggregation)
        assert read(alone) == read(together[k])
        assert rewards(alone) == pytest.approx(rewards(together[k]), abs=1e-3)
        first = alone.particles[0]
        assert reward_of(prm, TEXTS[k], first.steps, aggregation) == pytest.approx(
            first.reward, abs=1e-3
        )


def test_the_aggregation_is_the_runs() -> None:
    """Four runs with one reward model: the same particles where nothing resamples, and
    rewards by four rules.
    """
    lm, prm = shipped()
    found = {
        name: solve(TEXTS[2], lm, prm, 4, seed=1, threshold=0.0, aggregation=name)
        for name in AGGREGATIONS
    }
    last = found["last"]
    assert all(read(s) == read(last) for s in found.values())
    assert len({tuple(rewards(s)) for s in found.values()}) == 4
    for name in ("min", "prod"):
        assert all(
            a <= b for a, b in zip(rewards(found[name]), rewards(last), strict=True)
        )
    with pytest.raises(UserError, match="aggregation is one of last"):
        solve(TEXTS[2], lm, prm, 4, aggregation="mean")


@pytest.mark.parametrize("finished", ["absorbed", "reweighted"])
def test_a_particle_cut_in_its_first_step_has_no_reward(finished: str) -> None:
    """Not a reward of 0, which would be one half: it was never read."""
    lm, prm = world()
    proposal = Proposal(temperature=1.5, max_step_tokens=2, max_tokens=7)
    found = solve(
        [PROBLEM] * 4,
        lm,
        prm,
        8,
        proposal=proposal,
        threshold=0.0,
        finished=finished,
    )
    particles = [p for s in found for p in s.particles]
    cut = [p for p in particles if len(p.steps) == 1 and "\n\n" not in p.text]
    cut = [p for p in cut if not p.finished]
    assert cut and all(p.reward == -torch.inf and p.weight == 0 for p in cut)
    done = [p for p in particles if p.finished]
    assert done and all(abs(p.reward) < torch.inf and p.weight > 0 for p in done)


@pytest.mark.parametrize("potential", ["odds", "score", "telescoping"])
def test_a_particle_beyond_the_reward_models_context_is_ruled_out_alone(
    potential: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, prm = shipped()
    texts = TEXTS[:4]
    whole = solve(texts, lm, prm, 6, seed=1, threshold=0.0)
    fed = sorted(
        len(prm.render(s.problem, p.steps)[0]) for s in whole for p in s.particles
    )
    monkeypatch.setattr(prm, "context", fed[len(fed) // 2])
    found = solve(
        texts,
        lm,
        prm,
        6,
        seed=1,
        threshold=0.0,
        potential=potential,
        finished="reweighted",
    )
    beyond = [p for s in found for p in s.particles if p.reward == -torch.inf]
    assert beyond and all(p.weight == 0 for p in beyond)
    assert any(p.weight > 0 for s in found for p in s.particles)


def test_choices() -> None:
    """Among the same particles; hot ones, so that the choices differ."""
    lm, prm = shipped()
    hot, texts = Proposal(temperature=1.3), HARD[4:7]
    vote_, argmax, draw = (
        solve(texts, lm, prm, 8, seed=3, proposal=hot, threshold=0.0, choose=choice)
        for choice in ("vote", "argmax", "draw")
    )
    assert [read(s) for s in vote_] == [read(s) for s in argmax]
    differ = 0
    for by_vote, by_reward, drawn in zip(vote_, argmax, draw, strict=True):
        alive = [p for p in by_reward.particles if p.weight > 0]
        assert by_reward.chosen.reward == max(p.reward for p in alive)
        assert by_reward.answer == best_of(by_vote)
        assert by_vote.answer == next(iter(by_vote.votes))
        assert sum(by_vote.votes.values()) == pytest.approx(1)
        assert drawn.chosen in drawn.particles and drawn.chosen.weight > 0
        differ += by_vote.answer != by_reward.answer
        if by_vote.answer != by_reward.answer:
            text = by_vote.problem
            alone = solve(text, lm, prm, 8, seed=3, proposal=hot, threshold=0.0)
            assert alone.answer == by_vote.answer, "a vote is the default"
    assert differ


def test_nothing_ends_is_one_clear_line() -> None:
    lm, prm = shipped()
    with pytest.raises(UserError, match="no particle is left: every one met a limit"):
        solve(TEXTS[0], lm, prm, 4, proposal=Proposal(max_step_tokens=2))
    with pytest.raises(UserError, match="met a limit"):
        solve(TEXTS[0], lm, prm, 4, proposal=Proposal(max_steps=1))
    two_steps = min(range(8), key=lambda k: len(load_set("minimath500")[k].steps))
    found = solve(
        TEXTS, lm, prm, 4, proposal=Proposal(max_steps=2)
    )  # among several, the others are not lost
    assert len(found) == 8 and found[two_steps].answer is not None
    assert any(
        s.answer is None and s.chosen is None and s.log_evidence == -torch.inf
        for s in found
    )


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(particles=0), "at least one particle"),
        (dict(potential="logit"), "potential is one of"),
        (dict(resampling="x"), "resampling is one of"),
        (dict(choose="best"), "choose is one of"),
        (dict(tau=0.0), "must be positive"),
        (dict(threshold=2.0), "between 0 and 1"),
        (dict(finished="kept"), "finished is one of absorbed"),
        (dict(problems=" \n"), "problem is empty"),
        (dict(problems=[]), "no problem"),
        (dict(problems="a" * 70), "leaves no room"),
        (dict(problems=[3]), "a problem is a text"),
        (dict(batch=0), "at least one particle"),
        (dict(particles=4.0), "particles is a whole number, not 4.0"),
        (dict(particles=True), "particles is a whole number, not True"),
        (dict(batch=2.5), "batch is a whole number"),
        (dict(width=2.5), "width is a whole number"),
        (dict(resampling=None), "resampling is a text, not None"),
        (dict(anneal=0.5), "anneal is a text"),
        (dict(system=5), "system is a text"),
        (dict(tau=float("inf")), "tau is a finite number"),
        (dict(temperatures=[1.0, "x"]), "a list of finite numbers"),
        (dict(proposal=dict(temperature=1.0)), "proposal is a Proposal"),
        (dict(task="chess"), "there is no task 'chess'; take one of boxed"),
        (dict(task="math"), "no place for a system prompt"),
    ],
)
def test_bad_arguments(change: dict, message: str) -> None:
    lm, prm = world()
    arguments = dict(problems=PROBLEM, particles=4, proposal=PROPOSAL) | change
    with pytest.raises(UserError, match=message) as caught:
        solve(arguments.pop("problems"), lm, prm, **arguments)
    assert "\n" not in str(caught.value)


def test_bad_proposals() -> None:
    for bad in (
        dict(temperature=-1),
        dict(max_tokens=0),
        dict(step_tokens=0),
        dict(delimiter=""),
        dict(delimiter=r"\n\n"),
        dict(target_temperature=0.0),
        dict(temperature=0, target_temperature=1.0),
        dict(target_power=0.0),
        dict(target_power=float("inf")),
        dict(temperature=0, target_power=2.0),
        dict(temperature="0.8"),
        dict(temperature=None),
        dict(step_tokens=2.5),
        dict(max_tokens=2.5),
        dict(delimiter=None),
    ):
        with pytest.raises(UserError):
            Proposal(**bad)
    assert Proposal(delimiter=r"\newline").delimiter == r"\newline"


def test_numbers_of_numpy_are_python_s_in_settings() -> None:
    lm, prm = world()
    options: dict[str, Any] = dict(proposal=PROPOSAL, threshold=0.5, seed=3)
    plain = solve(PROBLEM, lm, prm, 8, **options)
    options |= dict(threshold=np.linspace(0, 1, 3)[1], seed=np.int64(3))
    options |= dict(particles=np.uint8(8))
    other = solve(PROBLEM, lm, prm, **options)
    assert plain.particles == other.particles
    settings = Settings(tau=np.float32(0.5), temperatures=[1, 2], particles=np.int8(4))
    assert (settings.tau, settings.temperatures) == (0.5, (1, 2))
    assert type(settings.tau) is float and type(settings.particles) is int
    mixed = Settings(temperatures=(1, np.float32(2)))
    assert json.dumps(mixed.temperatures) == "[1, 2.0]"
    model = Reasoning(lm, prm, [PROBLEM], PROPOSAL)
    run = particle_filter(model, 8, generators(0, 1), threshold=np.float32(0.5))
    assert run.threshold == 0.5


def test_one_text_is_not_taken_for_a_list_of_its_letters() -> None:
    lm, prm = world()
    for wrong in (
        lambda: greedy(PROBLEM, lm, 7),
        lambda: independent(PROBLEM, lm, prm, 4, proposal=PROPOSAL),
        lambda: Reasoning(lm, prm, PROBLEM, PROPOSAL),
    ):
        with pytest.raises(UserError, match="give a list of texts"):
            wrong()
    with pytest.raises(UserError, match="there is no problem"):
        greedy([], lm)


def test_a_task_by_name_brings_its_system_prompt() -> None:
    lm, prm = world()
    asked: list[str | None] = []

    class Asked(LanguageModel):
        def prompt(self, problem: str, system: str | None = None) -> list[int]:
            asked.append(system)
            return super().prompt(problem)

    own = Asked(lm.model, lm.tokenizer)
    options: dict[str, Any] = dict(proposal=PROPOSAL)
    solve(PROBLEM, own, prm, 2, task="math", **options)
    solve(PROBLEM, own, prm, 2, task=TASKS["math"], **options)
    solve(PROBLEM, own, prm, 2, task="math", system="", **options)
    solve(PROBLEM, own, prm, 2, task="math", system="Be brief.", **options)
    solve(PROBLEM, own, prm, 2, **options)
    system = TASKS["math"].system
    assert system and asked == [system, system, "", "Be brief.", None]


def test_what_reads_a_solution_counts_answers_as_its_task_does() -> None:
    lm, prm = world()
    task = replace(TASKS["boxed"], answer=str.strip, same=lambda a, b: a[:1] == b[:1])
    settings: dict[str, Any] = dict(proposal=PROPOSAL, task=task, method="samples")
    differ = 0
    for seed in range(20):
        found = solve(PROBLEM, lm, prm, 8, choose="majority", seed=seed, **settings)
        assert majority(found) == found.answer
        differ += majority(replace(found, same=None)) != found.answer
    assert differ


@pytest.mark.parametrize("method", ["greedy-search", "beam", "dvts"])
def test_a_search_has_no_weights_that_could_pay_for_another_target(
    method: str,
) -> None:
    for target in (dict(target_power=2.0), dict(target_temperature=0.5)):
        with pytest.raises(UserError, match="ranks by the reward alone"):
            Settings(method=method, proposal=Proposal(**target))


def test_answers() -> None:
    assert boxed("so \\boxed{\\frac{1}{2}}.") == "\\frac{1}{2}"
    assert boxed("\\boxed{1} and \\boxed{2") == "1" and boxed("no box") is None


def test_a_trace_ends_with_the_final_particles() -> None:
    """Also where the last resampling leaves no active particle a child."""
    lm, prm = LanguageModel.load("minimath-small"), RewardModel.load("minimath-prm")
    for text in [p.problem for p in load_set("minimath500")[156:163:6]]:
        found = solve(text, lm, prm, 16)
        weights = torch.tensor([p.weight for p in found.particles], dtype=torch.float64)
        assert torch.allclose(normalise(found.trace.log_weights[-1]), weights)
        assert not found.trace.active[-1].any()


def test_defaults() -> None:
    """Runs on record were made with these."""
    own = dict(
        temperature=0.8,
        target_temperature=None,
        target_power=None,
        delimiter="\n\n",
        step_tokens=None,
        max_step_tokens=1024,
        max_tokens=2048,
        max_steps=40,
    )
    assert asdict(Settings()) == dict(
        method="filter",
        particles=16,
        seed=0,
        choose=None,
        potential="odds",
        tau=1.0,
        aggregation="last",
        finished="absorbed",
        resampling="systematic",
        threshold=0.5,
        anneal=None,
        width=4,
        sweeps=4,
        temperatures=(1.0, 2.0),
        system=None,
        batch=128,
        proposal=own,
    )


def test_settings_at_their_limits() -> None:
    least: list[dict] = [
        dict(particles=1, batch=1, width=1, sweeps=1, threshold=0, temperatures=(1.0,)),
        dict(threshold=1, tau=1e-9, temperatures=(1.0, 1.0)),
        dict(proposal=Proposal(max_step_tokens=1, max_tokens=1, max_steps=1)),
        dict(proposal=Proposal(temperature=0, step_tokens=1)),
        dict(proposal=Proposal(target_temperature=1e-9, target_power=1e-9)),
    ]
    assert all(Settings(**known) for known in least)
    for target in (dict(target_temperature=2.0), dict(target_power=2.0)):
        both = Proposal(**target).target
        assert both == (2.0, 1.0) or both == (1.0, 2.0)
        assert both == tuple(target.get(k, 1.0) for k in TARGETS)
    for bad in (
        dict(temperature=INF),
        dict(temperature=float("nan")),
        *(dict(target_temperature=x) for x in (INF, -1.0)),
        *(dict(target_power=x) for x in (INF, 0, -1.0)),
        dict(max_step_tokens=0),
        dict(max_steps=0),
    ):
        with pytest.raises(UserError):
            Proposal(**bad)
    share = "the resampling threshold is a share of N between 0 and 1, not"
    chains = "chains have temperatures that begin with 1 and are not below it, not"
    for change, message in (
        (dict(threshold=-0.1), f"{share} -0.1"),
        (dict(threshold=1.1), f"{share} 1.1"),
        (dict(tau=INF), "tau is a finite number, not inf"),
        (dict(tau=0), "the potential's temperature must be positive, not 0"),
        (dict(width=0), "a beam's width is at least 1, not 0"),
        (dict(sweeps=0), "there is at least one sweep, not 0"),
        (dict(temperatures=()), f"{chains} "),
        (dict(temperatures=(2.0, 3.0)), f"{chains} 2.0, 3.0"),
        (dict(temperatures=(1.0, 0.5)), f"{chains} 1.0, 0.5"),
        (
            dict(temperatures=(1.0, INF)),
            "temperatures is a list of finite numbers, not (1.0, inf)",
        ),
        (
            dict(method="beam", proposal=Proposal(target_power=2.0)),
            "beam ranks by the reward alone and has no weights that could pay for "
            "another target temperature or power; leave it out, or take the filter",
        ),
    ):
        with pytest.raises(UserError) as caught:
            Settings(**change)
        assert str(caught.value) == message


def test_problems_go_together_as_far_as_they_fill_a_batch() -> None:
    for problems, particles, batch, sizes in (
        (9, 4, 16, [4, 4, 4]),
        (3, 17, 16, [1, 1, 1]),
        (3, 16, 16, [1, 1, 1]),
        (4, 8, 17, [2, 2]),
        (3, 1, 2, [2, 2]),
        (1, 16, 16, [1]),
    ):
        parts = in_batches(problems, Settings(particles=particles, batch=batch))
        assert [part.stop - part.start for part in parts] == sizes
        assert [part.start for part in parts] == [
            k * sizes[0] for k in range(len(sizes))
        ]
    assert in_batches(1, Settings(particles=4)) == [slice(0, 32)]


@pytest.mark.parametrize(
    ("options", "together"),
    [
        (dict(), 16),
        (dict(method="beam"), 16),
        (dict(method="gibbs", sweeps=4), 4),
        (dict(method="gibbs", sweeps=32), 1),
        (dict(method="tempering", sweeps=2, temperatures=(1.0, 2.0)), 8),
        (dict(method="adaptive"), 4),
        (dict(method="adaptive", particles=2), 2),
    ],
)
def test_only_a_sweep_or_a_round_fills_a_batch(options: Any, together: int) -> None:
    """Of the same problems four sweeps let four times as many share their passes."""
    settings = Settings(**dict(particles=16) | options)
    assert settings.together == together
    assert in_batches(9, settings)[0] == slice(0, 128 // together)


def test_the_bar_counts_problems_and_is_gone_afterwards(
    capsys: pytest.CaptureFixture[str],
) -> None:
    solve([PROBLEM] * 2, *world(), 2, proposal=PROPOSAL, batch=2, progress="thinking")
    err = capsys.readouterr().err
    assert "thinking:   0%" in err and "0/2 [00:00<?, ? problems/s]" in err
    assert err.endswith("\r") and "\n" not in err


def test_an_annealing_that_there_is_not_is_found_before_any_work() -> None:
    lm, prm = world()
    with pytest.raises(UserError, match="no annealing 'cold'"):
        solve(PROBLEM, lm, prm, 2, method="beam", anneal="cold")

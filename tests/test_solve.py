"""`solve` and the reasoning model as users call them."""

import pytest
import torch

from pfref import LanguageModel, Proposal, RewardModel, UserError, solve
from pfref.answers import boxed, vote
from pfref.baselines import best_of
from pfref.minimath.problems import load_set
from pfref.reasoning import Reasoning, odds, score, telescoping
from pfref.smc import particle_filter
from pfref.randomness import generators
from tests.enumerable import PROBLEM, PROPOSAL, world

TEXTS = [p.problem for p in load_set("minimath500")[:8]]


def read(solution) -> list[tuple]:
    return [(p.text, p.answer, p.finished) for p in solution.particles]


def test_each_token_once_with_resampling_at_every_step() -> None:
    """Counted inside both models' forward: prompts once a problem, every generated token once, every judged token once."""
    lm, prm = world()
    seen = {"lm": 0, "prm": 0}
    hooks = [
        model.register_forward_pre_hook(
            lambda m, a, k, name=name: seen.__setitem__(
                name,
                seen[name]
                + int(k["attention_mask"].shape[0] * k["input_ids"].shape[1]),
            ),
            with_kwargs=True,
        )
        for name, model in (("lm", lm.model), ("prm", prm.body))
    ]
    found = solve([PROBLEM] * 3, lm, prm, 8, proposal=PROPOSAL, threshold=1.0)
    for hook in hooks:
        hook.remove()
    assert all(len(s.trace.ess) > 1 for s in found)
    assert seen["lm"] == sum(
        s.cost.prompt_tokens + s.cost.generated_tokens for s in found
    )
    assert seen["prm"] >= sum(
        s.cost.scored_tokens for s in found
    )  # equal but for padding to the longest step


@pytest.mark.parametrize("threads", [1, 2])
def test_same_particles_alone_and_among_seven_others(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        lm, prm = LanguageModel.load("minimath-small"), shipped_prm()
        together = solve(TEXTS, lm, prm, 8, seed=4, threshold=1.0)
        for k in (0, 3, 7):
            alone = solve(TEXTS[k], lm, prm, 8, seed=4, threshold=1.0)
            assert read(alone) == read(together[k])
            assert alone.log_evidence == pytest.approx(
                together[k].log_evidence, abs=1e-4
            )
    finally:
        torch.set_num_threads(before)


def test_batches_change_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Two problems a batch, or one, as the bar shows them: the same particles, but other passes."""
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
            watch=lambda step: populations.append(step.state.population.shape[0]),
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


def shipped_prm() -> RewardModel:
    return RewardModel.load("minimath-prm")


def test_seeds_matter_and_repeat() -> None:
    lm, prm = world()
    a, b, c = (
        solve(PROBLEM, lm, prm, 16, proposal=PROPOSAL, seed=s) for s in (1, 1, 2)
    )
    assert read(a) == read(b) != read(c)
    twice = solve([PROBLEM, PROBLEM], lm, prm, 16, proposal=PROPOSAL, seed=1)
    assert read(twice[0]) == read(a) != read(twice[1])


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
    """Without resampling, the product of r_t / r_t-1 is r_T: for every finished particle."""
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


@pytest.mark.parametrize("aggregation", ["last", "min", "prod", "model"])
def test_rewards_do_not_depend_on_the_batch(aggregation: str) -> None:
    """A particle that has stopped keeps its reward while others of its batch take more steps."""
    lm, prm = (
        LanguageModel.load("minimath-small"),
        RewardModel.load("minimath-prm", aggregation=aggregation),
    )
    together = solve(TEXTS, lm, prm, 4, seed=1)
    assert len({len(s.trace.ess) for s in together}) > 1
    for k in (0, 3):
        alone = solve(TEXTS[k], lm, prm, 4, seed=1)
        assert read(alone) == read(together[k])
        assert [p.reward for p in alone.particles] == pytest.approx(
            [p.reward for p in together[k].particles], abs=1e-3
        )
        judgement = prm.start([TEXTS[k]], 1)
        for step in alone.particles[0].steps:
            prm.extend(judgement, torch.ones(1, dtype=torch.bool), [step])
        assert float(prm.log_odds(judgement)) == pytest.approx(
            alone.particles[0].reward, abs=1e-3
        )


@pytest.mark.parametrize("potential", ["odds", "score", "telescoping"])
def test_a_particle_beyond_the_reward_models_context_is_ruled_out_alone(
    potential: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, prm = LanguageModel.load("minimath-small"), RewardModel.load("minimath-prm")
    whole = solve(TEXTS, lm, prm, 8, seed=1, threshold=0.0)
    fed = sorted(
        len(prm.prompt(s.problem))
        + sum(len(prm.step_tokens(x, k == 0)) for k, x in enumerate(p.steps))
        for s in whole
        for p in s.particles
    )
    monkeypatch.setattr(prm, "context", fed[len(fed) // 2])
    found = solve(
        TEXTS,
        lm,
        prm,
        8,
        seed=1,
        threshold=0.0,
        potential=potential,
        finished="reweighted",
    )
    beyond = [p for s in found for p in s.particles if p.reward == -torch.inf]
    assert beyond and all(p.weight == 0 for p in beyond)
    assert any(p.weight > 0 for s in found for p in s.particles)


def test_choices() -> None:
    lm, prm = LanguageModel.load("minimath-small"), shipped_prm()
    text = next(
        p.problem
        for p in load_set("minimath500")  # the first on which the choices differ
        if best_of(found := solve(p.problem, lm, prm, 16, seed=3)) != found.answer
    )
    by = {
        c: solve(text, lm, prm, 16, seed=3, choose=c)
        for c in ("vote", "argmax", "draw")
    }
    particles = by["argmax"].particles
    assert by["argmax"].chosen.reward == max(
        p.reward for p in particles if p.weight > 0
    )
    assert by["vote"].answer == next(iter(by["vote"].votes)) and sum(
        by["vote"].votes.values()
    ) == pytest.approx(1)
    assert (
        by["vote"].answer
        == solve(text, lm, prm, 16, seed=3).answer
        != by["argmax"].answer
        == best_of(by["vote"])
    )
    assert by["draw"].chosen in particles
    draws = [
        solve(
            TEXTS[1], lm, prm, 4, seed=s, choose="draw", proposal=Proposal(max_steps=20)
        )
        for s in range(3)
    ]
    assert all(d.chosen.weight > 0 for d in draws)


def test_nothing_ends_is_one_clear_line() -> None:
    lm, prm = LanguageModel.load("minimath-small"), shipped_prm()
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
        (dict(potential="logit"), "no potential"),
        (dict(resampling="x"), "no resampling"),
        (dict(choose="best"), "no choice"),
        (dict(tau=0.0), "must be positive"),
        (dict(threshold=2.0), "between 0 and 1"),
        (dict(finished="kept"), "absorbed"),
        (dict(problems=" \n"), "problem is empty"),
        (dict(problems=[]), "no problem"),
        (dict(problems="a" * 70), "leaves no room"),
        (dict(problems=[3]), "a problem is a text"),
        (dict(batch=0), "at least one particle"),
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
        dict(target_temperature=0.0),
        dict(temperature=0, target_temperature=1.0),
    ):
        with pytest.raises(UserError):
            Proposal(**bad)


def test_answers() -> None:
    assert boxed("so \\boxed{\\frac{1}{2}}.") == "\\frac{1}{2}"
    assert boxed("\\boxed{1} and \\boxed{2") == "1" and boxed("no box") is None
    assert vote(["1", "2", "2", None, ""], [0.4, 0.2, 0.3, 5.0, 9.0]) == pytest.approx(
        {"2": 5 / 9, "1": 4 / 9}
    )
    assert vote([None], [1.0]) == {} == vote(["3"], [0.0])

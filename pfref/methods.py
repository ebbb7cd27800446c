"""Every method by its name: what runs on a batch of problems with a budget of N each.

A method is a function of a `Reasoning` model, one generator a problem, `Settings`, and
`watch`, which sees every step; it returns a `Harvest`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import islice

import torch
from torch import Generator, Tensor

from .answers import vote
from .errors import UserError
from .gibbs import ParticleGibbs, Sweep, swapped
from .randomness import split, uniforms
from .reasoning import Reasoning, Thoughts
from .resampling import SCHEMES
from .schedules import schedule
from .search import BeamSearch
from .settings import ROUND, Settings
from .smc import ParticleFilter, Step
from .solution import Harvest

Watch = Callable[[Step[Thoughts]], None] | None
Method = Callable[[Reasoning, Sequence[Generator], Settings, Watch], Harvest]
SURE = 0.95


def follow(run: ParticleFilter[Thoughts], watch: Watch) -> ParticleFilter[Thoughts]:
    """Run to the end."""
    for step in run:
        if watch:
            watch(step)
    return run


def once(
    model: Reasoning, run: ParticleFilter[Thoughts], watch: Watch, evidence: bool
) -> Harvest:
    """What one run on all problems finds; does it estimate the evidence?"""
    found = Harvest(model)
    found.add(follow(run, watch), evidence=evidence)
    return found


def by_filter(
    model: Reasoning, sources: Sequence[Generator], settings: Settings, watch: Watch
) -> Harvest:
    """The particle filter."""
    run = ParticleFilter(
        model,
        settings.particles,
        sources,
        SCHEMES[settings.resampling],
        settings.threshold,
        schedule(settings.anneal, model.proposal.max_steps),
    )
    return once(model, run, watch, evidence=True)


def by_samples(
    model: Reasoning, sources: Sequence[Generator], settings: Settings, watch: Watch
) -> Harvest:
    """N independent samples: the filter that never resamples."""
    return by_filter(model, sources, replace(settings, threshold=0.0), watch)


def by_greedy(
    model: Reasoning, sources: Sequence[Generator], settings: Settings, watch: Watch
) -> Harvest:
    """The likeliest token at every place, once."""
    own = model.proposal
    limits = replace(own, temperature=0.0, target_temperature=None, target_power=None)
    model = model.proposing(limits)
    return by_samples(model, sources, replace(settings, particles=1), watch)


def by_adaptive_vote(
    model: Reasoning, sources: Sequence[Generator], settings: Settings, watch: Watch
) -> Harvest:
    """Samples in rounds, until the leading answer will hardly be overtaken.

    With a votes for the leader and b for the runner-up, the leader's share is larger
    with probability P(Beta(a + 1, b + 1) > 1/2) (Aggarwal et al. 2023). What is left of
    the budget is not spent.
    """
    found, left = Harvest(model), list(range(len(sources)))
    spent = 0
    while left and spent < settings.particles:
        size = min(ROUND, settings.particles - spent)
        run = ParticleFilter(
            model.only(left), size, [sources[k] for k in left], threshold=0.0
        )
        found.add(follow(run, watch), left, evidence=False)
        spent += size
        left = [k for k in left if not decided(found, k)]
    return found


def decided(found: Harvest, k: int) -> bool:
    """Can the leader of problem k no more be overtaken, with probability 0.95?"""
    finished = [p.answer for p in found.particles[k] if p.finished]
    votes = vote(finished, [1.0] * len(finished), found.model.task.same)
    counts = [round(share * len(finished)) for answer, share in votes.items() if answer]
    leader, second = (*counts, 0, 0)[:2]
    return settled(leader, second)


@cache
def settled(leader: int, second: int) -> bool:
    """Does the leader's share of votes exceed the second's, as sure as SURE?"""
    return leads(leader, second) >= SURE


def leads(a: int, b: int) -> float:
    """P(Beta(a + 1, b + 1) > 1/2), which is P(Binomial(a + b + 1, 1/2) <= a)."""
    n = a + b + 1
    terms = [
        torch.lgamma(torch.tensor([n + 1.0, k + 1.0, n - k + 1.0], dtype=torch.float64))
        for k in range(a + 1)
    ]
    log_p = torch.stack([t[0] - t[1] - t[2] for t in terms])
    return float((log_p - n * torch.tensor(2.0, dtype=torch.float64).log()).exp().sum())


def by_beam(
    model: Reasoning, sources: Sequence[Generator], settings: Settings, watch: Watch
) -> Harvest:
    """Beam search with N beams, of which N / width survive each step."""
    beams = settings.particles
    run = BeamSearch(model, beams, sources, min(settings.width, beams))
    return once(model, run, watch, evidence=False)


def by_greedy_search(
    model: Reasoning, sources: Sequence[Generator], settings: Settings, watch: Watch
) -> Harvest:
    """N next steps of which the best survives: beam search of width N."""
    return by_beam(model, sources, replace(settings, width=settings.particles), watch)


def by_dvts(
    model: Reasoning, sources: Sequence[Generator], settings: Settings, watch: Watch
) -> Harvest:
    """N / width greedy searches of `width`, which are populations of one problem."""
    trees = max(1, settings.particles // settings.width)
    beams = settings.particles // trees
    run = BeamSearch(model, beams, split(sources, trees), beams)
    return once(model, run, watch, evidence=False)


def by_gibbs(
    model: Reasoning, sources: Sequence[Generator], settings: Settings, watch: Watch
) -> Harvest:
    """Particle Gibbs: sweeps of N / sweeps particles, whose weighted populations are
    one sample together.
    """
    return by_tempering(model, sources, replace(settings, temperatures=(1.0,)), watch)


def by_tempering(
    model: Reasoning, sources: Sequence[Generator], settings: Settings, watch: Watch
) -> Harvest:
    """Parallel tempering of K particle Gibbs chains, whose log potentials are divided
    by their temperatures: N / (sweeps * K) particles each. The first chain answers.
    """
    if model.reweighted:
        raise UserError(
            "particle Gibbs needs a target that does not depend on the other "
            "particles; leave finished particles 'absorbed'"
        )
    heat = torch.tensor(settings.temperatures, dtype=torch.float64)
    taus = (model.tau * heat).tolist() * len(sources)
    chain = ParticleGibbs(
        model.at(taus),
        settings.particles // (settings.sweeps * len(heat)),
        split(sources, len(heat)),
        settings.threshold,
        schedule(settings.anneal, model.proposal.max_steps),
        watch=watch,
    )
    found = Harvest(model)
    sweeps = tempered(chain, 1 / (model.tau * heat), sources)
    for number, sweep in enumerate(islice(sweeps, settings.sweeps)):
        found.add(sweep.run, kept=1, evidence=number == 0)
    return found


def tempered(
    chain: ParticleGibbs[Thoughts], inverse: Tensor, sources: Sequence[Generator]
) -> Iterator[Sweep[Thoughts]]:
    """Sweeps of K chains a problem, whose neighbours offer to swap after each one: the
    chain's references are then what they have agreed on.

    inverse  (K,) the chains' inverse temperatures; sources, one a problem, decide swaps
    """
    problems, chains = len(sources), len(inverse)
    first = torch.arange(problems)[:, None] * chains
    for number, sweep in enumerate(chain):
        last, chosen = sweep.run.last, sweep.chosen[:, None]
        # Who was cut short has the score of what came before.
        weightless = last.log_weights.gather(1, chosen) == -torch.inf
        total = last.state.total.view(len(chosen), -1).gather(1, chosen)
        rewards = torch.where(weightless, -torch.inf, total).view(problems, chains)
        points = uniforms(sources, chains)
        source, _ = swapped(rewards, inverse, points, number % 2)
        order = (first + source).flatten().tolist()
        chain.references = [sweep.references[k] for k in order]
        yield sweep


METHODS: dict[str, Method] = {
    "greedy": by_greedy,
    "samples": by_samples,
    "adaptive": by_adaptive_vote,
    "greedy-search": by_greedy_search,
    "beam": by_beam,
    "dvts": by_dvts,
    "filter": by_filter,
    "gibbs": by_gibbs,
    "tempering": by_tempering,
}
# How a method answers, if no other choice is asked for.
ANSWERS = {
    "greedy": "majority",
    "samples": "majority",
    "adaptive": "majority",
    "greedy-search": "argmax",
    "beam": "argmax",
    "dvts": "weighted",
    "filter": "vote",
    "gibbs": "vote",
    "tempering": "vote",
}

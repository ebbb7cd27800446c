"""Standard errors from one run, held against many runs."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from pfref import Solution, solve
from pfref.randomness import generators
from pfref.resampling import SCHEMES
from pfref.smc import ParticleFilter, particle_filter
from pfref.study.tasks import Task
from pfref.variance import families, relative_variance, standard_error
from tests.enumerable import PROBLEM, PROPOSAL, world
from tests.test_statespace import hidden_markov

F64 = torch.float64
MODEL = hidden_markov(steps=4)
LOG_Z = MODEL.forward().log_evidence[-1]
WORDS = Task(
    "words", None, lambda text: False, lambda text: text.strip() or None, str.__eq__
)


def estimates(run: ParticleFilter, resamplings: int | None = None) -> Tensor:
    """Each population's estimate of var(Z^) / Z^2; 1 for one family, as the formula
    has it. `resamplings`: None counts them.
    """
    first, found = run.lineage()[0], []
    counted = torch.stack([step.resampled for step in run.steps[:-1]]).sum(0).tolist()
    for p, log_weights in enumerate(run.last.log_weights):
        count = counted[p] if resamplings is None else resamplings
        estimate = relative_variance(log_weights, first[p], count)
        found.append(1.0 if estimate is None else estimate)
    return torch.tensor(found, dtype=F64)


def run_of(scheme: str, threshold: float, particles: int, runs: int = 1500) -> Any:
    return particle_filter(
        *(MODEL, particles, generators(3, runs), SCHEMES[scheme], threshold)
    )


def excess(run: Any, estimate: Tensor) -> float:
    """The estimate times Z^^2 less the squared error, whose mean is zero if the
    estimate is unbiased for var(Z^): its mean in standard errors.
    """
    z = (run.last.log_evidence - LOG_Z).exp()
    values = estimate * z.square() - (z - 1).square()
    return float(values.mean() / values.std() * len(values) ** 0.5)


@pytest.mark.parametrize("particles, threshold", [(4, 1.0), (12, 1.0), (6, 0.0)])
def test_the_evidences_variance_is_unbiased(particles: int, threshold: float) -> None:
    """Lee and Whiteley's estimate: multinomial resampling at every step, or none."""
    run = run_of("multinomial", threshold, particles)
    assert abs(excess(run, estimates(run))) < 3


def test_another_count_of_resamplings_is_seen() -> None:
    """One less in (N / (N - 1))^(1 + resamplings), or one more."""
    run = run_of("multinomial", 1.0, 12)
    assert excess(run, estimates(run, 2)) > 6 and excess(run, estimates(run, 4)) < -6


def ratio(run: Any, estimate: Tensor) -> float:
    """Of the estimated variance to that of the runs."""
    z = (run.last.log_evidence - LOG_Z).exp()
    return float((estimate * z.square()).mean() / (z - 1).square().mean())


def test_adaptive_resampling_is_near() -> None:
    run = run_of("multinomial", 0.7, 32)
    assert 0.85 < ratio(run, estimates(run)) < 1.15
    assert 0 < sum(float(s.resampled.double().mean()) for s in run.steps) < 2.9


@pytest.mark.parametrize("scheme", ["systematic", "stratified", "residual"])
def test_other_schemes_err_on_the_safe_side(scheme: str) -> None:
    """If no resampling is counted. Taken for multinomial ones, the estimate is mostly
    negative.
    """
    run = run_of(scheme, 1.0, 32)
    assert 1.2 < ratio(run, estimates(run, 0)) < 3
    assert ratio(run, estimates(run)) < 0.5


def test_of_samples_it_is_their_own_variance() -> None:
    w = torch.tensor([0.1, 0.4, 0.2, 0.9], dtype=F64)
    found = relative_variance(w.log(), torch.arange(4), 0)
    assert found == pytest.approx(float(w.var() / 4 / w.mean() ** 2))


def test_a_trace_tells_the_families() -> None:
    """Of problems out of step too."""
    lm, prm = world()
    runs: list[Any] = []
    found = solve(
        [PROBLEM] * 6,
        lm,
        prm,
        8,
        task=WORDS,
        proposal=PROPOSAL,
        threshold=1.0,
        watch=runs.append,
    )
    line = torch.arange(8).repeat(6, 1)
    for step in reversed(runs[:-1]):
        line = step.ancestors.gather(1, line)
    for k, s in enumerate(found):
        assert torch.equal(families(s.trace.ancestors), line[k])
        assert not s.trace.independent
        variance = relative_variance(s.trace.log_weights[-1], line[k], 0)
        assert s.log_evidence_error == (variance and max(0.0, variance) ** 0.5)
        assert s.resamplings == sum(int(step.resampled[k]) for step in runs)


def test_families_by_hand() -> None:
    """Three steps of four; the last row is not used."""
    ancestors = torch.tensor([[0, 0, 2, 3], [1, 2, 2, 3], [3, 3, 3, 3]])
    assert families(ancestors).tolist() == [0, 2, 2, 3]
    assert families(ancestors[:1]).tolist() == [0, 1, 2, 3]


def test_a_mean_by_hand() -> None:
    """Families of sizes 1 and 2: sums of weighted deviations, squared."""
    w = torch.tensor([0.5, 0.3, 0.2], dtype=F64)
    values, family = torch.tensor([1.0, 0.0, 1.0], dtype=F64), torch.tensor([0, 2, 2])
    mean = 0.7
    first, second = 0.5 * (1 - mean), 0.3 * (0 - mean) + 0.2 * (1 - mean)
    wanted = math.sqrt((3 / 2) ** 2 * (first**2 + second**2))
    assert standard_error(values, w.log(), family, 1) == pytest.approx(wanted)


def test_nothing_can_be_told_after_a_collapse() -> None:
    w, ones = torch.zeros(3, dtype=F64), torch.ones(3, dtype=F64)
    one, dead = torch.tensor([1, 1, 1]), torch.full((3,), -torch.inf, dtype=F64)
    own = torch.arange(3)
    for log_w, family in ((w, one), (dead, own)):
        assert relative_variance(log_w, family, 2) is None
        assert standard_error(ones, log_w, family, 2) is None
    heir = torch.tensor([0.0, -torch.inf, -torch.inf], dtype=F64)
    assert relative_variance(heir, own, 0) is None


def shares(runs: int, **options: Any) -> tuple[Tensor, Tensor, list[Solution], str]:
    """(runs,) the commonest answer's share in each run, and its error by itself."""
    lm, prm = world()
    found = solve(
        [PROBLEM] * runs,
        lm,
        prm,
        32,
        task=WORDS,
        proposal=PROPOSAL,
        batch=32 * runs,
        **options,
    )
    total: dict[str | None, float] = {}
    for s in found:
        for answer, part in s.votes.items():
            total[answer] = total.get(answer, 0.0) + part
    leader = max((a for a in total if a), key=lambda a: total[a])
    errors = [s.vote_error(leader) for s in found]
    share = torch.tensor([s.votes.get(leader, 0.0) for s in found], dtype=F64)
    kept = [e for e in errors if e is not None]
    assert len(kept) == len(errors)
    return share, torch.tensor(kept, dtype=F64), found, leader


@pytest.mark.parametrize(
    "resampling, threshold, runs",
    [
        ("multinomial", 1.0, 100),
        pytest.param("multinomial", 0.0, 300, marks=pytest.mark.slow),
        pytest.param("systematic", 0.5, 300, marks=pytest.mark.slow),
    ],
)
def test_a_solution_offers_both(resampling: str, threshold: float, runs: int) -> None:
    """On the transformer: the errors that runs tell of themselves, in the mean square,
    are those that the runs show.
    """
    share, errors, found, leader = shares(
        runs, resampling=resampling, threshold=threshold
    )
    of_votes = float(errors.square().mean() / share.var())
    log_z = torch.tensor([s.log_evidence for s in found], dtype=F64)
    told = torch.tensor([s.log_evidence_error for s in found], dtype=F64)
    of_evidence = float(told.square().mean() / log_z.var())
    room = 3 * (2 / (runs - 1)) ** 0.5  # three standard errors of a variance
    assert abs(of_votes - 1) < room
    assert 1 - room < of_evidence < (1 + room if resampling == "multinomial" else 2.5)
    one = found[0]
    assert one.trace.independent == (resampling == "multinomial")
    alike = [bool(p.answer) and p.answer[0] == leader[0] for p in one.particles]
    expected = standard_error(
        torch.tensor(alike).double(),
        one.trace.log_weights[-1],
        families(one.trace.ancestors),
        one.resamplings,
    )
    alike_by_letter = replace(one, same=lambda a, b: a[0] == b[0])
    assert alike_by_letter.vote_error(leader) == expected


def test_where_one_population_is_not_all_there_is_no_error() -> None:
    lm, prm = world()
    options = dict(task=WORDS, proposal=PROPOSAL)
    for method in ("gibbs", "dvts", "beam", "adaptive"):
        found = solve([PROBLEM], lm, prm, 16, method=method, **options)[0]
        assert found.log_evidence_error is None
        assert found.vote_error(found.answer) is None
    assert solve([PROBLEM], lm, prm, 16, **options)[0].log_evidence_error is not None

"""Annealed resampling: which weights it uses, and that all estimates stay right."""

import math

import pytest
import torch
from torch import Tensor

from pfref.errors import UserError
from pfref.lm import Proposal
from pfref.randomness import generators
from pfref.reasoning import Reasoning
from pfref.resampling import SCHEMES
from pfref.schedules import FLATTEST, entropic, power, schedule, target_ess
from pfref.smc import Priority, particle_filter
from pfref.weights import effective_sample_size, normalise
from tests.enumerable import PROBLEM, enumerate_paths, log_target, world
from tests.test_statespace import hidden_markov

NAMES = ("power:0.5", "power:0.1", "ess:0.5", "ess:0.9", "entropic")
F64 = torch.float64
W = torch.tensor(
    [[0.0, -1.0, -2.0, -9.0], [0.0, 0.0, 0.0, 0.0], [0.0, -math.inf, -50.0, -60.0]],
    dtype=F64,
)
NONE_TAKEN = torch.zeros(3, dtype=torch.long)


def alphas(priority: Priority, w: Tensor = W, taken: Tensor = NONE_TAKEN) -> Tensor:
    """The power that was used, read off two particles of weight."""
    v = priority(w, taken)
    finite = torch.where(w.isfinite() & (w != 0), v / w, torch.nan)
    return finite.nanmean(1)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "threshold, scheme", [(0.5, "systematic"), (1.0, "multinomial")]
)
def test_evidence_and_means_are_unbiased(
    name: str, threshold: float, scheme: str
) -> None:
    """The likelihood of a hidden Markov model, and the mass of one last state."""
    model, priority = hidden_markov(), schedule(name, 6)
    run = particle_filter(
        *(model, 6, generators(hash_of(name), 800), SCHEMES[scheme], threshold),
        priority=priority,
    )
    exact = model.forward()
    z = (run.last.log_evidence - exact.log_evidence[-1]).exp()
    assert abs(z.mean() - 1) < 3 * z.std() / len(z) ** 0.5
    mass = z * (run.last.weights * (run.last.state == 0)).sum(1)
    wanted = exact.filtered[-1, 0]
    assert abs(mass.mean() - wanted) < 3 * mass.std() / len(z) ** 0.5
    assert any(step.resampled.any() for step in run.steps)


def hash_of(name: str) -> int:
    return sum(map(ord, name))


PROPOSAL = Proposal(temperature=1.5, max_step_tokens=3, max_tokens=6, max_steps=3)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name, threshold",
    [
        ("power:0.3", 1.0),
        pytest.param("entropic", 1.0, marks=SLOW),
        pytest.param("ess:0.7", 1.0, marks=SLOW),
        pytest.param("power:0.3", 0.5, marks=SLOW),
        pytest.param("entropic", 0.5, marks=SLOW),
        pytest.param("ess:0.7", 0.5, marks=SLOW),
    ],
)
def test_evidence_of_texts_is_unbiased(name: str, threshold: float) -> None:
    """A step of the transformer weighed by cubes, so that the annealing has work."""
    lm, prm = world()
    model = Reasoning(lm, prm, [PROBLEM], PROPOSAL, "odds", tau=1 / 3)
    run = particle_filter(
        *(model, 6, generators(7, 250), SCHEMES["systematic"], threshold),
        priority=schedule(name, PROPOSAL.max_steps),
    )
    exact = sum(
        math.exp(log_target(path, "odds", 1 / 3))
        for path in enumerate_paths(lm, prm, PROPOSAL)
    )
    z = run.last.log_evidence.exp()
    assert abs(z.mean() - exact) < 3 * z.std() / len(z) ** 0.5


def test_what_is_left_stays_in_the_weights() -> None:
    """After a resampling by w^alpha a child has w^(1 - alpha) times the mean of
    w^alpha.
    """
    run = particle_filter(
        *(hidden_markov(), 8, generators(1, 50), SCHEMES["multinomial"], 1.0),
        priority=power(0.25),
    )
    first, second = run.steps[:2]
    increment = run.model.log_potential(second.state, 2)
    kept = 0.75 * first.log_weights.gather(1, first.ancestors)
    mean = (0.25 * first.log_weights).exp().mean(1, keepdim=True).log()
    torch.testing.assert_close(second.log_weights, kept + mean + increment)


def test_flatter_weights_leave_more_families() -> None:
    """What it is for: more of the first particles have descendants."""
    left = {}
    for name in (None, "power:0.3"):
        run = particle_filter(
            *(hidden_markov(steps=12), 32, generators(2, 100)),
            *(SCHEMES["systematic"], 1.0),
            priority=schedule(name, 12),
        )
        first = run.lineage()[0]
        left[name] = sum(len(row.unique()) for row in first) / len(first)
    assert left["power:0.3"] > 1.15 * left[None]


def test_power_is_the_power() -> None:
    v = power(0.3)(W, NONE_TAKEN)
    assert torch.equal(v, torch.where(W.isinf(), -torch.inf, 0.3 * W))
    assert torch.equal(power(1.0)(W, NONE_TAKEN), W)
    assert float(alphas(power(1e-9))[0]) == pytest.approx(FLATTEST)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_target_ess_is_met_and_no_flatter_than_that(share: float) -> None:
    v = target_ess(share)(W, NONE_TAKEN)
    before, after = effective_sample_size(W), effective_sample_size(v)
    alive = torch.tensor([4.0, 4.0, 3.0], dtype=F64)
    for k in range(3):
        if before[k] >= share * alive[k]:
            assert torch.equal(v[k], W[k])
        else:
            assert float(after[k]) == pytest.approx(float(share * alive[k]), rel=1e-6)
    dead = torch.full((1, 4), -torch.inf, dtype=F64)
    assert torch.equal(target_ess(share)(dead, NONE_TAKEN[:1]), dead)


def test_entropic_by_hand() -> None:
    """alpha = H + (1 - H) * progress while young and low, else 1."""
    weights = normalise(W[0])
    h = float(-(weights * weights.log()).sum()) / math.log(4)
    low = effective_sample_size(W[:1]) < 0.9 * 4
    assert low and 0 < h < 1
    for taken, wanted in ((0, h), (4, h + (1 - h) * 0.4), (5, 1.0), (9, 1.0)):
        count = torch.full((3,), taken)
        found = alphas(entropic(10, threshold=0.9), taken=count)
        assert float(found[0]) == pytest.approx(wanted, rel=1e-9)
    assert torch.equal(entropic(10, threshold=0.1)(W, NONE_TAKEN)[0], W[0])
    assert torch.equal(entropic(10)(W, NONE_TAKEN)[1], W[1])  # equal weights


def test_each_population_by_its_own_weights_and_age() -> None:
    taken = torch.tensor([0, 3, 5])
    for name in NAMES:
        priority = schedule(name, 8)
        assert priority is not None
        together = priority(W, taken)
        for k in range(3):
            alone = priority(W[k : k + 1], taken[k : k + 1])
            torch.testing.assert_close(alone[0], together[k])


def test_names() -> None:
    assert schedule(None, 4) is None
    for name in (
        "power",
        "power:0",
        "power:2",
        "ess:x",
        "cold",
        "ess:nan",
        "entropic:3",
    ):
        with pytest.raises(UserError, match="there is no annealing"):
            schedule(name, 4)


def test_of_entropic_by_default() -> None:
    """Low is less than half of N. The entropy is a share of log N, of two also."""
    three = torch.tensor([[0.0, 0.0, 0.0, -50.0]], dtype=F64)
    none = torch.zeros(1, dtype=torch.long)
    assert torch.equal(entropic(10)(three, none), three)
    two = torch.tensor([[0.0, -3.0]], dtype=F64)
    p = normalise(two[0])
    h = float(-(p * p.log()).sum()) / math.log(2)
    found = entropic(10, threshold=0.9)(two, none)
    assert float(found[0, 1]) == pytest.approx(-3 * h)


def test_a_share_may_be_the_whole() -> None:
    for name in ("power:1", "ess:1.0"):
        assert schedule(name, 4) is not None
    told = (
        "there is no annealing 'cold'; choose one of power:0.5 (any power of the "
        "weights), ess:0.5 (any share of the living), entropic"
    )
    with pytest.raises(UserError) as caught:
        schedule("cold", 4)
    assert str(caught.value) == told

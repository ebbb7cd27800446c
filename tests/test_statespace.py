"""The exact answers against plainer exact answers, and the particle filter against
both.

The forward algorithm is held against a sum over all K^T paths, the Kalman filter and
smoother against one large Gaussian conditioned directly. Every seed is fixed, and a
comparison is made once.
"""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pfref.randomness import draw, generator, generators, normals, uniforms
from pfref.resampling import SCHEMES
from pfref.smc import ParticleFilter, particle_filter
from pfref.statespace import HiddenMarkov, LinearGaussian, log_gaussian

F64 = torch.float64


def hidden_markov(
    states: int = 3, symbols: int = 4, steps: int = 6, seed: int = 0
) -> HiddenMarkov:
    source = generator("hidden Markov", seed)

    def rows(*shape: int) -> Tensor:
        positive = torch.rand(*shape, generator=source, dtype=F64) ** 2 + 0.05
        return positive / positive.sum(-1, keepdim=True)

    observations = torch.randint(symbols, (steps,), generator=source)
    return HiddenMarkov(
        rows(states), rows(states, states), rows(states, symbols), observations
    )


def linear_gaussian(
    d: int = 2, e: int = 1, steps: int = 6, seed: int = 0
) -> LinearGaussian:
    source = generator("linear Gaussian", seed)

    def matrix(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=F64)

    def covariance(size: int) -> Tensor:
        root = 0.6 * matrix(size, size)
        return root @ root.T + 0.3 * torch.eye(size, dtype=F64)

    return LinearGaussian(
        matrix(d),
        covariance(d),
        0.6 * matrix(d, d),
        covariance(d),
        matrix(e, d),
        covariance(e),
        matrix(steps, e),
    )


def gentle_gaussian() -> LinearGaussian:
    """One whose observations say little each, so that 16 particles without resampling
    are already enough for the error to follow its law.
    """
    return replace(
        linear_gaussian(),
        transition=torch.tensor([[0.8, 0.3], [-0.3, 0.8]], dtype=F64),
        transition_noise=0.3 * torch.eye(2, dtype=F64),
        observation_noise=torch.tensor([[4.0]], dtype=F64),
    )


# ---- the plainer exact answers ----


def all_paths(model: HiddenMarkov, steps: int) -> tuple[Tensor, Tensor]:
    """(K^t, t) every path of t states, and (K^t,) the log of p(x_1:t, y_1:t)."""
    paths = list(itertools.product(range(len(model.initial)), repeat=steps))
    y = model.observations.tolist()
    joint = []
    for path in paths:
        p = float(model.initial[path[0]]) * float(model.emission[path[0], y[0]])
        for t in range(1, steps):
            p *= float(model.transition[path[t - 1], path[t]]) * float(
                model.emission[path[t], y[t]]
            )
        joint.append(math.log(p))
    return torch.tensor(paths), torch.tensor(joint, dtype=F64)


def big_gaussian(
    model: LinearGaussian,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Mean and covariance of (x_1, ..., x_T) and (y_1, ..., y_T) as one vector: m_x,
    C_xx, m_y, C_xy, C_yy.
    """
    steps, d = len(model.observations), len(model.initial_mean)
    # x = J (start, noise_2, ..., noise_T), where block (t, s) of J is F^(t - s)
    jumps = torch.zeros(steps * d, steps * d, dtype=F64)
    for t in range(steps):
        for s in range(t + 1):
            jumps[t * d : (t + 1) * d, s * d : (s + 1) * d] = torch.linalg.matrix_power(
                model.transition, t - s
            )
    sources = torch.block_diag(
        model.initial_covariance, *[model.transition_noise] * (steps - 1)
    )
    mean_x = jumps[:, :d] @ model.initial_mean
    c_xx = jumps @ sources @ jumps.T
    look = torch.block_diag(*[model.observation] * steps)
    c_yy = look @ c_xx @ look.T + torch.block_diag(*[model.observation_noise] * steps)
    return mean_x, c_xx, look @ mean_x, c_xx @ look.T, c_yy


def conditioned(model: LinearGaussian, seen: int) -> tuple[Tensor, Tensor, float]:
    """Means (T, d) and covariances (T, d, d) of every x_t given y_1:seen, and log
    p(y_1:seen).
    """
    steps, d, e = (
        len(model.observations),
        len(model.initial_mean),
        len(model.observation),
    )
    mean_x, c_xx, mean_y, c_xy, c_yy = big_gaussian(model)
    mean_y, c_xy, c_yy = (
        mean_y[: seen * e],
        c_xy[:, : seen * e],
        c_yy[: seen * e, : seen * e],
    )
    residual = model.observations[:seen].reshape(-1) - mean_y
    precision = torch.linalg.inv(c_yy)
    mean = mean_x + c_xy @ precision @ residual
    covariance = c_xx - c_xy @ precision @ c_xy.T
    blocks = torch.stack(
        [covariance[t * d : (t + 1) * d, t * d : (t + 1) * d] for t in range(steps)]
    )
    log_p = -0.5 * (
        residual @ precision @ residual
        + torch.logdet(c_yy)
        + len(residual) * math.log(2 * math.pi)
    )
    return mean.reshape(steps, d), blocks, float(log_p)


# ---- exact against exact ----


@pytest.mark.parametrize(
    "states, symbols, steps, seed",
    [(3, 4, 6, 0), (2, 2, 9, 1), (4, 3, 5, 2), (1, 2, 3, 3), (3, 2, 1, 4)],
)
def test_forward_equals_the_sum_over_all_paths(
    states: int, symbols: int, steps: int, seed: int
) -> None:
    model = hidden_markov(states, symbols, steps, seed)
    found = model.forward()
    assert found.filtered.shape == (steps, states) and found.log_evidence.shape == (
        steps,
    )
    for t in range(1, steps + 1):
        paths, joint = all_paths(model, t)
        assert len(paths) == states**t
        log_z = torch.logsumexp(joint, 0)
        posterior = torch.stack(
            [(joint - log_z).exp()[paths[:, -1] == k].sum() for k in range(states)]
        )
        torch.testing.assert_close(
            found.log_evidence[t - 1], log_z, rtol=1e-12, atol=1e-12
        )
        torch.testing.assert_close(
            found.filtered[t - 1], posterior, rtol=1e-12, atol=1e-12
        )


def test_an_impossible_observation_is_an_outcome_not_a_nan() -> None:
    emission = torch.tensor([[0.8, 0.2, 0.0], [0.3, 0.7, 0.0]], dtype=F64)
    model = HiddenMarkov(
        torch.tensor([0.9, 0.1], dtype=F64),
        torch.tensor([[0.8, 0.2], [0.1, 0.9]], dtype=F64),
        emission,
        torch.tensor([0, 2, 0]),
    )
    found = model.forward()
    assert found.log_evidence[1:].tolist() == [-math.inf, -math.inf] and torch.isfinite(
        found.log_evidence[0]
    )
    assert found.filtered[1:].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    run = particle_filter(model, 8, generators(0, 2))
    assert (
        run.last.log_evidence.tolist() == [-math.inf, -math.inf]
        and run.last.weights.sum() == 0
    )


DIMENSIONS = [(2, 1, 6, 0), (1, 1, 8, 1), (3, 2, 5, 2), (2, 3, 4, 3), (2, 2, 1, 4)]


@pytest.mark.parametrize("d, e, steps, seed", DIMENSIONS)
def test_kalman_filter_equals_conditioning_on_what_was_seen(
    d: int, e: int, steps: int, seed: int
) -> None:
    model = linear_gaussian(d, e, steps, seed)
    found = model.kalman_filter()
    for t in range(1, steps + 1):
        means, covariances, log_z = conditioned(model, t)
        torch.testing.assert_close(
            found.means[t - 1], means[t - 1], rtol=1e-9, atol=1e-10
        )
        torch.testing.assert_close(
            found.covariances[t - 1], covariances[t - 1], rtol=1e-9, atol=1e-10
        )
        assert float(found.log_evidence[t - 1]) == pytest.approx(
            log_z, rel=1e-10, abs=1e-10
        )


@pytest.mark.parametrize("d, e, steps, seed", DIMENSIONS)
def test_smoother_equals_conditioning_on_everything(
    d: int, e: int, steps: int, seed: int
) -> None:
    model = linear_gaussian(d, e, steps, seed)
    found = model.smoother()
    means, covariances, log_z = conditioned(model, steps)
    torch.testing.assert_close(found.means, means, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.covariances, covariances, rtol=1e-9, atol=1e-10)
    assert float(found.log_evidence[-1]) == pytest.approx(log_z, rel=1e-10, abs=1e-10)


def test_log_gaussian_is_the_formula() -> None:
    source = generator("formula")
    root = torch.randn(3, 3, generator=source, dtype=F64)
    covariance, difference = (
        root @ root.T + torch.eye(3, dtype=F64),
        torch.randn(5, 4, 3, generator=source, dtype=F64),
    )
    square = torch.einsum(
        "...i,ij,...j->...", difference, torch.linalg.inv(covariance), difference
    )
    expected = -0.5 * (square + torch.logdet(covariance) + 3 * math.log(2 * math.pi))
    torch.testing.assert_close(log_gaussian(difference, covariance), expected)


# ---- the models as the filter sees them ----


def test_hidden_markov_start_and_mutate_draw_from_mu_and_a() -> None:
    model = hidden_markov(seed=5)
    states = len(model.initial)
    first = model.start(20000, generators(1, 2))
    second = model.mutate(
        first, 2, torch.ones(2, 20000, dtype=torch.bool), generators(2, 2)
    )
    assert first.shape == second.shape == (2, 20000)
    for expected, found in [
        (model.initial, first),
        *((model.transition[k], second[first == k]) for k in range(states)),
    ]:
        share = torch.bincount(found.reshape(-1), minlength=states) / found.numel()
        assert (
            (share - expected).abs()
            < 4 * (expected * (1 - expected) / found.numel()).sqrt()
        ).all()


def test_linear_gaussian_start_and_mutate_have_their_means_and_covariances() -> None:
    model, n = linear_gaussian(seed=5), 40000
    first = model.start(n, generators(1, 1))
    fixed = first[:, :1].expand(-1, n, -1)
    second = model.mutate(
        fixed, 2, torch.ones(1, n, dtype=torch.bool), generators(2, 1)
    )
    for draws, mean, covariance in [
        (first[0], model.initial_mean, model.initial_covariance),
        (second[0], model.transition @ first[0, 0], model.transition_noise),
    ]:
        assert (
            (draws.mean(0) - mean).abs() < 4 * (covariance.diagonal() / n).sqrt()
        ).all()
        spread = (
            covariance.diagonal()[:, None] * covariance.diagonal() + covariance**2
        ) / n  # variance of a sample covariance
        assert ((torch.cov(draws.T) - covariance).abs() < 4 * spread.sqrt()).all()


def test_potentials_are_the_emission_densities() -> None:
    hmm, gaussian = hidden_markov(), linear_gaussian(d=2, e=2)
    states = torch.tensor([[0, 1, 2], [2, 2, 0]])
    for t in range(1, 7):
        assert torch.equal(
            hmm.log_potential(states, t),
            hmm.emission[states, hmm.observations[t - 1]].log(),
        )
    x = normals(generators(3, 2), 3, 2)
    expected = torch.distributions.MultivariateNormal(
        x @ gaussian.observation.T, gaussian.observation_noise
    )
    torch.testing.assert_close(
        gaussian.log_potential(x, 4), expected.log_prob(gaussian.observations[3])
    )


MODELS = {"hidden Markov": hidden_markov(), "linear Gaussian": gentle_gaussian()}


@pytest.mark.parametrize("name", MODELS)
def test_a_run_takes_as_many_steps_as_there_are_observations(name: str) -> None:
    run = particle_filter(MODELS[name], 4, generators(0, 3))
    assert [step.t for step in run.steps] == [1, 2, 3, 4, 5, 6]
    assert not run.last.active.any() and not run.last.resampled.any()


def test_randomness_depends_on_the_key_and_on_nothing_else() -> None:
    together, alone = uniforms(generators(9, 4), 5), uniforms([generator(9, 2)], 5)
    assert (
        together.shape == (4, 5)
        and together.dtype == F64
        and torch.equal(together[2:3], alone)
    )
    assert len({tuple(row) for row in together.tolist()}) == 4 and not torch.equal(
        together, uniforms(generators(8, 4), 5)
    )
    assert float(together.min()) >= 0 and float(together.max()) < 1
    assert torch.equal(
        normals(generators(9, 2), 3), draw(torch.randn, generators(9, 2), (3,))
    )
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    particle_filter(MODELS["hidden Markov"], 4, generators(0, 3))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", MODELS)
def test_a_population_is_the_same_alone_and_in_a_batch(name: str) -> None:
    together = particle_filter(MODELS[name], 8, generators(4, 5), threshold=0.7)
    for p in range(5):
        alone = particle_filter(MODELS[name], 8, [generator(4, p)], threshold=0.7)
        assert torch.equal(alone.last.state[0], together.last.state[p])
        torch.testing.assert_close(
            alone.last.log_weights[0],
            together.last.log_weights[p],
            rtol=1e-12,
            atol=1e-12,
        )


# ---- the particle filter against the exact answers ----


def exact(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """log Z_t, (T,); the mean of f(x_t) given y_1:t, (T,); the mean of f(x_t) given
    y_1:T, (T,).
    """
    model = MODELS[name]
    if isinstance(model, HiddenMarkov):
        found, (paths, joint) = model.forward(), all_paths(model, 6)
        smoothed = torch.stack(
            [(torch.softmax(joint, 0) * value(paths[:, t])).sum() for t in range(6)]
        )
        return found.log_evidence, found.filtered @ value(torch.arange(3)), smoothed
    assert isinstance(model, LinearGaussian)
    exact = model.kalman_filter()
    return exact.log_evidence, value(exact.means), value(model.smoother().means)


def value(state: Tensor) -> Tensor:
    """The test function f: 0, 1, 4 for the three hidden states; the first coordinate
    less half the second.
    """
    return (
        state[..., 0] - 0.5 * state[..., 1]
        if state.is_floating_point()
        else state.double() ** 2
    )


def assert_mean(draws: Tensor, expected: Tensor) -> None:
    """The mean of independent draws lies within 3 standard errors, which are small
    enough to say something.
    """
    error = draws.std() / math.sqrt(len(draws))
    assert error < 0.05 * max(abs(expected), draws.std())
    assert abs(draws.mean() - expected) < 3 * error


def run_of(name: str, scheme: str, threshold: float, seed: str) -> ParticleFilter:
    sources = [
        generator(seed, name, scheme, threshold, population)
        for population in range(3000)
    ]
    return particle_filter(MODELS[name], 16, sources, SCHEMES[scheme], threshold)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", MODELS)
def test_mean_weight_is_unbiased(name: str, scheme: str, threshold: float) -> None:
    """The mean of Z-hat is Z, and of Z-hat times the weighted mean of f it is Z E[f]:
    for the newest state (the filter's mean) and for the first state of each line (the
    smoother's).
    """
    run = run_of(name, scheme, threshold, "unbiased")
    assert bool(any(step.resampled.any() for step in run.steps)) == (threshold > 0)
    log_z, filtered, smoothed = exact(name)
    z = (run.last.log_evidence - log_z[-1]).exp()  # in units of the exact evidence
    assert_mean(z, torch.ones(()))
    assert_mean(z * (run.last.weights * value(run.last.state)).sum(-1), filtered[-1])
    first = value(run.steps[0].state).gather(1, run.lineage()[0])
    assert_mean(z * (run.last.weights * first).sum(-1), smoothed[0])


@pytest.mark.parametrize("name", MODELS)
def test_mean_weight_is_unbiased_at_every_step(name: str) -> None:
    log_z, filtered, _ = exact(name)
    run = run_of(name, "multinomial", 0.5, "every step")
    for t, step in enumerate(run.steps):
        z = (step.log_evidence - log_z[t]).exp()
        assert_mean(z, torch.ones(()))
        assert_mean(z * (step.weights * value(step.state)).sum(-1), filtered[t])


@pytest.mark.parametrize("quantity", ["evidence", "filtering mean"])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", MODELS)
def test_error_falls_as_one_over_root_n(
    name: str, threshold: float, quantity: str
) -> None:
    log_z, filtered, _ = exact(name)
    sizes = [16, 32, 64, 128, 256, 512, 1024]
    errors = []
    for n in sizes:
        sources = [
            generator("slope", name, threshold, n, population)
            for population in range(400)
        ]
        last = particle_filter(
            MODELS[name], n, sources, SCHEMES["multinomial"], threshold
        ).last
        if quantity == "evidence":
            error = last.log_evidence - log_z[-1]
        else:
            error = (last.weights * value(last.state)).sum(-1) - filtered[-1]
        errors.append(float(error.square().mean().sqrt()))
    x, y = torch.tensor(sizes, dtype=F64).log(), torch.tensor(errors, dtype=F64).log()
    slope = float(
        ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    )
    assert slope == pytest.approx(-0.5, abs=0.12)

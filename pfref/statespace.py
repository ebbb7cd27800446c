"""State-space models with exact answers: the oracles that the particle filter is held
against.

Both are Feynman-Kac models in bootstrap form: M_t is the model's own transition and
G_t(x_t) = p(y_t | x_t), so the evidence Z_t is the likelihood p(y_1:t). Their exact
filters need no samples: the forward algorithm (Rabiner 1989) and the Kalman filter
(Kalman 1960) with its smoother (Rauch et al. 1965).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor
from torch.distributions import MultivariateNormal

from .randomness import normals, uniforms
from .resampling import inverse_cdf
from .smc import FeynmanKac


def hold(state: Tensor, pinned: Sequence[Any] | None, t: int) -> Tensor:
    """Particle 0 of every population is where its pinned path, x_1:T, is at step t."""
    if pinned is not None:
        state[:, 0] = torch.stack([path[t - 1] for path in pinned])
    return state


@dataclass(frozen=True)
class Forward:
    """What the forward algorithm finds."""

    filtered: Tensor  # (T, K) p(x_t = k | y_1:t)
    log_evidence: Tensor  # (T,) log p(y_1:t)


@dataclass(frozen=True)
class Gaussian:
    """What the Kalman filter or the smoother finds: one Gaussian a step."""

    means: Tensor  # (T, d)
    covariances: Tensor  # (T, d, d)
    log_evidence: Tensor  # (T,) log p(y_1:t)


@dataclass(frozen=True)
class HiddenMarkov(FeynmanKac[Tensor]):
    """A hidden Markov model with K states and S symbols, and one observed sequence.

    Its particles are (P, N).
    """

    initial: Tensor  # mu, (K,)
    transition: Tensor  # A, (K, K), rows sum to one
    emission: Tensor  # B, (K, S), rows sum to one
    observations: Tensor  # y_1:T, (T,) symbols

    def start(
        self,
        particles: int,
        generators: Sequence[Generator],
        pinned: Sequence[Any] | None = None,
    ) -> Tensor:
        initial = self.initial.expand(len(generators), -1).contiguous()
        return hold(inverse_cdf(initial, uniforms(generators, particles)), pinned, 1)

    def mutate(
        self,
        state: Tensor,
        t: int,
        active: Tensor,
        generators: Sequence[Generator],
        pinned: Sequence[Any] | None = None,
    ) -> Tensor:
        points = uniforms(generators, state.shape[1])
        moved = inverse_cdf(self.transition[state], points[..., None])[..., 0]
        return hold(moved, pinned, t)

    def log_future(self, state: Tensor, t: int, pinned: Sequence[Any]) -> Tensor:
        following = torch.stack([path[t] for path in pinned])
        return self.transition.log()[state, following[:, None]]

    def log_potential(self, state: Tensor, t: int) -> Tensor:
        return self.emission.log()[state, self.observations[t - 1]]

    def finished(self, state: Tensor, t: int) -> Tensor:
        return torch.full(state.shape, t == len(self.observations))

    def forward(self) -> Forward:
        """The exact answer: predict with A, weigh with B, normalise; the normaliser is
        p(y_t | y_1:t-1).
        """
        predicted, filtered, increments = self.initial, [], []
        for symbol in self.observations.tolist():
            joint = predicted * self.emission[:, symbol]
            total = joint.sum()
            increments.append(total.log())
            filtered.append(
                joint / total if total > 0 else joint
            )  # impossible: -inf and zeros, not NaN
            predicted = filtered[-1] @ self.transition
        return Forward(torch.stack(filtered), torch.stack(increments).cumsum(0))


@dataclass(frozen=True)
class LinearGaussian(FeynmanKac[Tensor]):
    """x_t = F x_t-1 + noise(Q), y_t = H x_t + noise(R), x_1 ~ N(m_0, Sigma_0).

    Its particles are (P, N, d).
    """

    initial_mean: Tensor  # m_0, (d,)
    initial_covariance: Tensor  # Sigma_0, (d, d)
    transition: Tensor  # F, (d, d)
    transition_noise: Tensor  # Q, (d, d)
    observation: Tensor  # H, (e, d)
    observation_noise: Tensor  # R, (e, e)
    observations: Tensor  # y_1:T, (T, e)

    def start(
        self,
        particles: int,
        generators: Sequence[Generator],
        pinned: Sequence[Any] | None = None,
    ) -> Tensor:
        noise = normals(generators, particles, len(self.initial_mean))
        spread = torch.linalg.cholesky(self.initial_covariance)
        return hold(self.initial_mean + noise @ spread.T, pinned, 1)

    def mutate(
        self,
        state: Tensor,
        t: int,
        active: Tensor,
        generators: Sequence[Generator],
        pinned: Sequence[Any] | None = None,
    ) -> Tensor:
        noise = normals(generators, *state.shape[1:])
        spread = torch.linalg.cholesky(self.transition_noise)
        return hold(state @ self.transition.T + noise @ spread.T, pinned, t)

    def log_future(self, state: Tensor, t: int, pinned: Sequence[Any]) -> Tensor:
        following = torch.stack([path[t] for path in pinned])[:, None]
        return log_gaussian(
            following - state @ self.transition.T, self.transition_noise
        )

    def log_potential(self, state: Tensor, t: int) -> Tensor:
        return log_gaussian(
            self.observations[t - 1] - state @ self.observation.T,
            self.observation_noise,
        )

    def finished(self, state: Tensor, t: int) -> Tensor:
        return torch.full(state.shape[:2], t == len(self.observations))

    def kalman_filter(self) -> Gaussian:
        """p(x_t | y_1:t), exact: predict, correct by the gain times the surprise."""
        mean, covariance = self.initial_mean, self.initial_covariance
        means, covariances, increments = [], [], []
        for t, y in enumerate(self.observations):
            if t > 0:
                mean = self.transition @ mean
                covariance = (
                    self.transition @ covariance @ self.transition.T
                    + self.transition_noise
                )
            surprise = y - self.observation @ mean
            spread = (
                self.observation @ covariance @ self.observation.T
                + self.observation_noise
            )
            gain = torch.linalg.solve(spread, self.observation @ covariance).T
            increments.append(log_gaussian(surprise, spread))
            mean = mean + gain @ surprise
            covariance = covariance - gain @ spread @ gain.T
            means.append(mean)
            covariances.append(covariance)
        return Gaussian(
            torch.stack(means),
            torch.stack(covariances),
            torch.stack(increments).cumsum(0),
        )

    def smoother(self) -> Gaussian:
        """p(x_t | y_1:T) exactly: walk back from the last filtered Gaussian."""
        found = self.kalman_filter()
        means, covariances = [found.means[-1]], [found.covariances[-1]]
        for mean, covariance in zip(
            found.means[:-1].flip(0), found.covariances[:-1].flip(0), strict=True
        ):
            predicted = (
                self.transition @ covariance @ self.transition.T + self.transition_noise
            )
            gain = torch.linalg.solve(predicted, self.transition @ covariance).T
            means.append(mean + gain @ (means[-1] - self.transition @ mean))
            covariances.append(
                covariance + gain @ (covariances[-1] - predicted) @ gain.T
            )
        return Gaussian(
            torch.stack(means[::-1]), torch.stack(covariances[::-1]), found.log_evidence
        )


def log_gaussian(difference: Tensor, covariance: Tensor) -> Tensor:
    """log N(difference; 0, covariance): (..., e), (e, e) -> (...)."""
    return MultivariateNormal(torch.zeros_like(covariance[0]), covariance).log_prob(
        difference
    )

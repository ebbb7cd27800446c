"""pfref: particle filtering for inference-time scaling of language models, as a reference implementation."""

from .errors import UserError
from .lm import LanguageModel, Proposal
from .prm import RewardModel
from .smc import FeynmanKac, ParticleFilter, particle_filter
from .solver import Solution, solve

__version__ = "0.1.0"
__all__ = [
    "FeynmanKac",
    "LanguageModel",
    "ParticleFilter",
    "Proposal",
    "RewardModel",
    "Solution",
    "UserError",
    "particle_filter",
    "solve",
]

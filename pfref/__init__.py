"""pfref: particle filtering for inference-time scaling of language models.

A reference implementation. The public names are loaded when they are first asked for,
so that `pfref --help` does not wait for torch, and to stop early is no traceback.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import UserError
    from .lm import LanguageModel, Proposal
    from .prm import RewardModel
    from .probe import Probe
    from .reward_function import RewardFunction
    from .smc import FeynmanKac, ParticleFilter, particle_filter
    from .solver import Solution, solve

__version__ = "0.1.0"
__all__ = [
    "FeynmanKac",
    "LanguageModel",
    "ParticleFilter",
    "Probe",
    "Proposal",
    "RewardFunction",
    "RewardModel",
    "Solution",
    "UserError",
    "particle_filter",
    "solve",
]
HOMES = {
    "FeynmanKac": "smc",
    "LanguageModel": "lm",
    "ParticleFilter": "smc",
    "Probe": "probe",
    "Proposal": "lm",
    "RewardFunction": "reward_function",
    "RewardModel": "prm",
    "Solution": "solver",
    "UserError": "errors",
    "particle_filter": "smc",
    "solve": "solver",
}


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f".{HOMES[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

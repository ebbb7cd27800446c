"""The two models that a command or a recipe names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import UserError

SERVED = ("endpoint_model", "dialect", "in_flight")  # flags of an endpoint
PROBES = Path(__file__).parent / "probes"


def load_models(flags: Mapping[str, Any]) -> tuple[Any, Any]:
    """The language model and the reward model, by the names of the command line's
    flags. Whatever is wrong with one is said before anything is loaded.
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from .hardware import best_device
    from .prm import RewardModel
    from .probe import Probe

    best_device(flags["device"])
    best_device(flags["prm_device"])
    own = {
        "--prm-device": flags["prm_device"],
        "--prm-family": flags["prm_family"],
        "--prm-separator": flags["prm_separator"],
        "--prm-revision": flags["prm_revision"],
    }
    judge = flags["prm"] or default_reward_model(flags["model"])
    if (judge == "self" or probe_file(judge)) and (
        given := [name for name in own if own[name] is not None]
    ):
        raise UserError(
            f"--prm {judge} is a part of the language model and takes no {given[0]}; "
            "leave it out, or name a reward model"
        )
    if probe_file(judge) and flags["prm_noise"] is not None:
        raise UserError("--prm-noise is for reward models, and not for a probe")
    lm: Any = policy(flags)
    if judge == "self":
        prm: Any = RewardModel.judging(lm)
    elif file := probe_file(judge):
        prm = Probe.load(file, lm)
    else:
        prm = RewardModel.load(
            judge,
            flags["prm_device"] or flags["device"],
            flags["dtype"],
            family=flags["prm_family"],
            separator=flags["prm_separator"],
            revision=flags["prm_revision"],
        )
    if flags["prm_noise"] is not None:
        from .study.noisy import NoisyRewardModel

        prm = NoisyRewardModel(prm, flags["prm_noise"])
    return lm, prm


def policy(flags: Mapping[str, Any]) -> Any:
    """The language model, in this process or behind an endpoint."""
    from .lm import LanguageModel

    common = dict(revision=flags["revision"], template_args=flags["chat_template_args"])
    if flags.get("endpoint") is None:
        for name in SERVED:
            if flags.get(name) is not None:
                option = "--" + name.replace("_", "-")
                raise UserError(f"{option} is for --endpoint; give it, or leave it out")
        return LanguageModel.load(
            flags["model"], flags["device"], flags["dtype"], **common
        )
    judge = flags["prm"]
    if judge == "self" or (judge and probe_file(judge)):
        raise UserError(
            f"--prm {judge} needs the language model in this process; give a reward "
            "model of its own, or leave --endpoint out"
        )
    names = dict(model="endpoint_model", dialect="dialect", in_flight="in_flight")
    given = {k: flags[name] for k, name in names.items() if flags[name] is not None}
    return LanguageModel.connect(flags["endpoint"], flags["model"], **given, **common)


def probe_file(name: str) -> Path | None:
    """The file of a probe: a shipped one by its name, or a .safetensors file."""
    shipped, path = PROBES / f"{name}.safetensors", Path(name).expanduser()
    if Path(name).name == name and shipped.is_file():
        return shipped
    return path if path.suffix == ".safetensors" and not path.is_dir() else None


def unreadable(
    lm: Any, prm: Any, problems: Sequence[str], system: str | None
) -> dict[int, str]:
    """Which problems one of the models cannot read, by their place, and why."""
    found: dict[int, str] = {}
    for place, problem in enumerate(problems):
        try:
            lm.prompt(problem, system)
            prm.prompt(problem)
        except UserError as error:
            found[place] = str(error)
    return found


def default_reward_model(model: str) -> str:
    """MiniMath's, for MiniMath's language models only: it cannot read other text."""
    from .loading import is_hub_id, is_shipped, locate

    if not is_hub_id(model) and is_shipped(locate(model)):
        return "minimath-prm"
    raise UserError(
        f"{model} needs a reward model that reads what it writes, and the default one "
        "reads MiniMath only; give --prm, such as --prm Qwen/Qwen2.5-Math-PRM-7B, or "
        "--prm self"
    )

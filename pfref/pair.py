"""The two models that a command or a recipe names."""

from collections.abc import Mapping, Sequence
from typing import Any

from .errors import UserError
from .options import flag

# Flags of servers, and those that name one of which one is needed.
SERVED = {
    "endpoint_model": ("endpoint",),
    "dialect": ("endpoint",),
    "in_flight": ("endpoint", "prm_endpoint"),
    "prm_endpoint_model": ("prm_endpoint",),
}


def load_models(flags: Mapping[str, Any], replay: Any = None) -> tuple[Any, Any]:
    """The language model and the reward model, by the names of the command line's
    flags. Whatever is wrong with one is said before anything is loaded.

    replay  takes the language model's place, which is then loaded only to judge itself
    """
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from .hardware import best_device
    from .loading import probe_file
    from .prm import RewardModel
    from .probe import Probe

    best_device(flags["device"])
    best_device(flags["prm_device"])
    check(flags)
    judge = flags["prm"] or default_reward_model(flags["model"])
    lm: Any = replay if replay and judge != "self" else policy(flags)
    if judge == "self":
        prm: Any = RewardModel.judging(lm)
    elif probe_file(judge):
        prm = Probe.load(judge, lm)
    else:
        names = ("family", "separator", "revision")
        named = {name: flags[f"prm_{name}"] for name in names}
        if (url := flags.get("prm_endpoint")) is not None:
            there = dict(model="prm_endpoint_model", in_flight="in_flight")
            prm = RewardModel.connect(url, judge, **given(flags, there), **named)
        else:
            device = flags["prm_device"] or flags["device"]
            prm = RewardModel.load(judge, device, flags["dtype"], **named)
    if flags["prm_noise"] is not None:
        from .study.noisy import NoisyRewardModel

        prm = NoisyRewardModel(prm, flags["prm_noise"])
    return replay or lm, prm


def check(flags: Mapping[str, Any]) -> None:
    """Raises UserError for flags of models that do not go together."""
    from .loading import probe_file

    have = {name for name, value in flags.items() if value is not None}
    for name, servers in SERVED.items():
        if name in have and not have & {*servers}:
            told = " or ".join(map(flag, servers))
            raise UserError(f"{flag(name)} is for {told}; give it, or leave it out")
    judge = flags["prm"]
    probe = judge is not None and probe_file(judge) is not None
    if judge == "self" or probe:
        for name in ("device", "family", "separator", "revision", "endpoint"):
            if f"prm_{name}" in have:
                raise UserError(
                    f"--prm {judge} is a part of the language model and takes no "
                    f"--prm-{name}; leave it out, or name a reward model"
                )
        if "endpoint" in have:
            raise UserError(
                f"--prm {judge} needs the language model in this process; give a "
                "reward model of its own, or leave --endpoint out"
            )
    if probe and "prm_noise" in have:
        raise UserError("--prm-noise is for reward models, and not for a probe")
    for name in ("prm_device", "prm_noise"):
        if "prm_endpoint" in have and name in have:
            raise UserError(
                f"{flag(name)} is for a reward model in this process; leave it out, "
                "or --prm-endpoint"
            )


def given(flags: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The arguments that flags give, by argument and flag."""
    return {k: flags[name] for k, name in names.items() if flags[name] is not None}


def policy(flags: Mapping[str, Any]) -> Any:
    """The language model, in this process or behind an endpoint."""
    from .lm import LanguageModel

    common = dict(revision=flags["revision"], template_args=flags["chat_template_args"])
    if flags.get("endpoint") is None:
        return LanguageModel.load(
            flags["model"], flags["device"], flags["dtype"], **common
        )
    names = dict(model="endpoint_model", dialect="dialect", in_flight="in_flight")
    there = given(flags, names)
    return LanguageModel.connect(flags["endpoint"], flags["model"], **there, **common)


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

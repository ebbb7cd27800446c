"""Families of process reward models, as data: how each reads, and where its head lies.

The recipes are those of the models' cards and of public code: TRL's PRMTrainer
(tokenize_row), search-and-learn (MathShepherd, RLHFFlow), Skywork's prepare_input and
VersaPRM's data sets and evaluation. No code of theirs is run, and no pickle is opened.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from .errors import UserError
from .readers import (
    Rendered,
    asked,
    bare,
    before_blank_line,
    chat,
    closed,
    end_token,
    in_chat,
    in_lines,
    in_text,
    one_token,
    question,
)

EXTRA, WIDE = "<extra_0>", " \n\n\n\n"
RIGHT, YES = ("-", "+"), ("No", "Yes")
BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
NO_REFERENCE = (
    "\n\n###\n\nThe reference answer is: "
    "There is no reference answer for this question."
)


@dataclass(frozen=True)
class Family:
    """How one family is fed, and what makes its score of a hidden state.

    render  (tokenizer, problem, steps) -> (ids of the whole partial solution, each
            step's place in them or NOWHERE). Without steps it is the prompt, with which
            every rendering of that problem begins.
    head    the prefix of the head's tensors in the weights, or the words (wrong, right)
            whose rows of a language model's head are compared
    tokens  texts that the tokenizer must have as one token each
    chat    whether it needs a chat template
    """

    name: str
    render: Callable[[Any, str, Sequence[str]], Rendered]
    head: str | tuple[str, str]
    tokens: tuple[str, ...] = ()
    chat: bool = False

    def check(self, tokenizer: Any) -> None:
        """Raises UserError if the tokenizer lacks what the family's texts need."""
        for text in self.tokens:
            one_token(tokenizer, text)
        if not isinstance(self.head, str):
            words_of(tokenizer, self)
        if self.chat and not tokenizer.chat_template:
            raise UserError(
                "the reward model's tokenizer has no chat template, which the family "
                f"{self.name} reads; take the folder with its tokenizer_config.json or "
                "chat_template.jinja"
            )
        self.render(tokenizer, "", [""])


def in_qwens_way(name: str, system: str | None) -> Family:
    render = partial(closed, opening=chat(system=system), separator=EXTRA)
    return Family(name, render, "score.", (EXTRA,), chat=True)


def trl(separator: str = "\n") -> Family:
    """Trained by TRL. The separator is not stored with the model: the user names it."""
    if not separator:
        raise UserError("the separator of a TRL reward model is a text, not empty")
    return Family("trl", partial(closed, opening=bare, separator=separator), "score.")


def itself(template_args: dict[str, Any] | None = None) -> Family:
    """A language model that judges, by the odds of Yes against No to one question.

    It was not trained for that: it likes its own mistakes, a small one says Yes to
    nearly everything, and one that thinks first has not thought.
    """
    opening = chat(template_args=template_args)
    closing = question(template_args)
    return Family("self", partial(asked, opening=opening, closing=closing), YES)


FAMILIES = {
    family.name: family
    for family in (
        in_qwens_way("qwen", BOXED),
        in_qwens_way("reasonflux", None),
        Family("skywork", in_lines, "v_head.summary.", ("\n",)),
        Family("math-shepherd", partial(in_text, tag="ки"), RIGHT, ("ки",)),
        Family("rlhflow", in_chat, RIGHT, chat=True),
        Family(
            "versaprm",
            partial(closed, opening=before_blank_line, separator=WIDE, strip=None),
            RIGHT,
            (WIDE,),
        ),
        Family(
            "universal",
            partial(
                asked,
                opening=chat(NO_REFERENCE, "You are a helpful assistant."),
                closing=end_token,
                end="\n\n",
            ),
            "score.",
            chat=True,
        ),
        trl(),
        itself(),
    )
}
ARCHITECTURES = {
    "Qwen2ForProcessRewardModel": "qwen",
    "Qwen2ForPrmModel": "skywork",
    "Qwen2ForRewardModel": "universal",
}


def family_of(
    architectures: Sequence[str], name: str | None, separator: str | None
) -> Family | None:
    """The family that the user names, or that an architecture tells.

    reasonflux, and the families that judge by a language model's head, look like others
    and must be named. None: nothing is named, and nothing told.
    """
    if name is None:
        kinds = [ARCHITECTURES[kind] for kind in architectures if kind in ARCHITECTURES]
        if any(kind.endswith("ForTokenClassification") for kind in architectures):
            kinds.append("trl")
        name = kinds[0] if kinds else None
    elif name not in FAMILIES:
        raise UserError(
            f"there is no family {name!r} of reward models; choose one of "
            f"{', '.join(FAMILIES)}"
        )
    if separator is not None and name != "trl":
        raise UserError("a separator is named for reward models of the family trl only")
    if separator is not None:
        return trl(separator)
    return None if name is None else FAMILIES[name]


# Heads


class LogOdds(nn.Module):
    """Of hidden states (..., h) in float32 the log-odds (...,) that a step is right.

    `net` has one output, the log-odds, or two logits, wrong and right. `cap` is for
    language models that bound their logits: cap * tanh(logit / cap).
    """

    def __init__(self, net: nn.Module, cap: float | None = None) -> None:
        super().__init__()
        self.net, self.cap = net, cap

    def forward(self, hidden: Tensor) -> Tensor:
        """The log-odds: see the class."""
        logits = self.net(hidden)
        if self.cap is not None:
            logits = self.cap * torch.tanh(logits / self.cap)
        return logits[..., -1] - (logits[..., 0] if logits.shape[-1] == 2 else 0)


def new_head(width: int) -> nn.Sequential:
    """Qwen2.5-Math-PRM's head, in float32: two logits, wrong and right."""
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))


def load_head(folder: Path, family: Family, tokenizer: Any, body: Any) -> LogOdds:
    """The head beside the body in a model's *.safetensors; no other tensor is read."""
    if not isinstance(family.head, str):
        rows = words_of(tokenizer, family)
        if getattr(body.config.get_text_config(), "tie_word_embeddings", False):
            return compared(body.get_input_embeddings().weight[rows], body.config)
        stored = read(folder, lambda name: name.endswith("lm_head.weight"), rows)
        if stored:
            return compared(next(iter(stored.values())), body.config)
        raise UserError(f"{folder} has no language model's head in its safetensors")
    stored = read(folder, lambda name: name.startswith(str(family.head)))
    tensors = {name.removeprefix(family.head): x for name, x in stored.items()}
    if set(tensors) - {"bias"} == {"weight"}:
        net: nn.Module = linear(tensors["weight"], tensors.get("bias"))
    elif {"0.weight", "2.weight"} <= set(tensors):
        net = nn.Sequential(
            linear(tensors["0.weight"], tensors.get("0.bias")),
            nn.ReLU(),
            linear(tensors["2.weight"], tensors.get("2.bias")),
        )
    else:
        raise UserError(
            f"{folder} has no reward head ({family.head}*) in its safetensors files"
        )
    last: Any = [*net.modules()][-1]
    outputs = last.out_features
    if outputs > 2:
        raise UserError(
            f"{folder} has a head with {outputs} outputs; a reward model has one, the "
            "log-odds, or two, wrong and right"
        )
    return LogOdds(net).eval()


def compared(rows: Tensor, config: Any, bias: Tensor | None = None) -> LogOdds:
    """Two rows (2, h) of a language model's head, wrong and right, and its scaling."""
    config = config.get_text_config()
    scale = getattr(config, "logit_scale", None) or 1.0  # Cohere
    scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite
    net = linear(scale * rows, None if bias is None else scale * bias)
    return LogOdds(net, getattr(config, "final_logit_softcapping", None)).eval()


def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    net = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    net.weight = nn.Parameter(weight.detach().float(), requires_grad=False)
    if bias is not None:
        net.bias = nn.Parameter(bias.detach().float(), requires_grad=False)
    return net


def words_of(tokenizer: Any, family: Family) -> list[int]:
    """The tokens (wrong, right) that a language model's head is asked for."""
    return [one_token(tokenizer, word) for word in family.head]


def read(
    folder: Path, wanted: Callable[[str], bool], rows: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Tensors of a folder's *.safetensors by name, or some rows of each."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as stored:
            for name in filter(wanted, stored.keys()):
                if rows is None:
                    found[name] = stored.get_tensor(name)
                else:
                    part = stored.get_slice(name)
                    found[name] = torch.cat([part[row : row + 1] for row in rows])
    return found

"""Models that write what a test gives them, and what tests of the proposal share."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Generator, Tensor, nn
from transformers import GenerationConfig, PreTrainedTokenizerFast

from pfref import LanguageModel, Proposal
from pfref.paths import Paths
from pfref.randomness import generator, generators

PIECES = ["<e>", "\n\n", "\n", "a", "b", ".\n\nThe", ".", " ", "c\n", "\n d"]
PIECES += ["<turn>", "\n\n\n", "<bos>"]


def tokenizer_of(
    pieces: list[str],
    template: str | None = None,
    bos: str | None = None,
    end: str = "<e>",
) -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are `pieces`; `bos` is written by its post-processor, as
    Llama's do.
    """
    special = [p for p in pieces if p.startswith("<") and p.endswith(">")]
    raw = Tokenizer(
        models.WordLevel({p: k for k, p in enumerate(pieces)}, unk_token=pieces[0])
    )
    raw.add_special_tokens(special)
    raw.pre_tokenizer = pre_tokenizers.Split("\0", "isolated")
    if bos:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, pieces.index(bos))]
        )
    raw.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token=end,
        bos_token=bos,
        clean_up_tokenization_spaces=False,
        additional_special_tokens=special,
        chat_template=template,
    )


class Head(nn.Module):
    """From a token's number, (..., 1), logits (..., V) that leave no other choice."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(vocabulary, 1), requires_grad=False)

    def forward(self, following: Tensor) -> Tensor:
        logits = torch.full((*following.shape[:-1], len(self.weight)), -30.0)
        logits = logits.scatter(-1, following.clamp(min=0), 30.0)
        return torch.where(following < 0, torch.nan, logits)


class Scripted(nn.Module):
    """A "model" that writes given tokens after a prompt of one token, whatever it is
    fed. A token below 0 gives logits that are NaN.
    """

    def __init__(
        self,
        script: Sequence[int],
        vocabulary: int,
        context: int = 64,
        ends: int | list[int] | None = 0,
    ) -> None:
        super().__init__()
        self.head, self.script = Head(vocabulary), list(script)
        self.device = torch.device("cpu")
        self.config: Any = SimpleNamespace(
            max_position_embeddings=context, eos_token_id=None
        )
        self.config.get_text_config = lambda: self.config
        self.generation_config = GenerationConfig(eos_token_id=ends)

    def set_attn_implementation(self, name: str) -> None:
        pass

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        past_key_values: Any = None,
        **_: Any,
    ) -> Any:
        following = torch.tensor(self.script + [0] * 99)[position_ids]
        return SimpleNamespace(logits=self.head(following[..., None]))


def scripted(
    text: Sequence[str],
    context: int = 64,
    ends: int | list[int] | None = 0,
    template: str | None = None,
) -> LanguageModel:
    """A language model that writes these pieces."""
    model = Scripted([PIECES.index(p) for p in text], len(PIECES), context, ends)
    return LanguageModel(model, tokenizer_of(PIECES, template))


def write(
    text: Sequence[str],
    context: int = 64,
    ends: int | list[int] | None = 0,
    template: str | None = None,
    look: int = 1,
    **limits: Any,
) -> tuple[Paths, list[list[str]]]:
    """Let two particles write the pieces; the record, and the pieces of each step."""
    lm = scripted(text, context, ends, template)
    lm.look = look
    paths = finish(lm, lm.start([[3]], 2, Proposal(**limits)), generators(0, 1))
    assert steps_of(paths, 0) == steps_of(paths, 1)
    return paths, [[PIECES[token] for token in step] for step in steps_of(paths, 0)]


def finish(
    lm: LanguageModel,
    paths: Paths,
    sources: Sequence[Generator],
    shuffle: int | None = None,
) -> Paths:
    """Step by step to the end. `shuffle` seeds a fork of every population by random
    ancestors after each of its steps.
    """
    while (active := going(paths)).any():
        done = lm.extend(paths, active, sources)
        if shuffle is not None:
            lm.fork(paths, random_ancestors(paths, done, shuffle))
    return paths


def going(paths: Paths) -> Tensor:
    return ~(paths.ended | paths.truncated)


def random_ancestors(paths: Paths, done: Tensor, seed: int) -> Tensor:
    """For the populations that are done; of each that depend on its own text only."""
    rows, n = torch.arange(paths.rows), paths.shape[1]
    for p in done.nonzero()[:, 0].tolist():
        own = [paths.tokens[row] for row in range(p * n, p * n + n)]
        draws = torch.randint(n, (n,), generator=generator(seed, own))
        rows[p * n : p * n + n] = draws + p * n
    return rows


def steps_of(paths: Paths, row: int) -> list[list[int]]:
    """The tokens of each of a row's steps."""
    ends = [0, *paths.ends[row]]
    return [list(paths.tokens[row][a:b]) for a, b in zip(ends, ends[1:], strict=False)]

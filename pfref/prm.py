"""Process reward models: how likely is each step, and so each prefix, to be right?

A model reads the ids of the whole partial solution, as its family renders them. Scores
are causal: what a row has read stays in its cache, which goes back to where the new ids
begin to differ, so that every token is fed once and none is glued. A score is kept as
its log-odds z, the difference of two logits in float32: in bfloat16 a probability
rounds to 1.0 above z = 6.2, and one particle would take all the weight.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .attention import NAME
from .cache import RaggedCache
from .errors import UserError, reading
from .families import FAMILIES as FAMILIES
from .families import Family, LogOdds, compared, family_of, itself, load_head, words_of
from .families import new_head as new_head
from .groups import in_groups, padded
from .hardware import best_device
from .judgement import AGGREGATIONS as AGGREGATIONS
from .judgement import Judgement as Judgement
from .judgement import Scorer, consecutive
from .loading import (
    check_known,
    context_of,
    load_tokenizer,
    load_weights,
    locate,
    probe_file,
)
from .packing import plain
from .prompts import refuse_unknown
from .readers import NOWHERE, Rendered

if TYPE_CHECKING:
    from .lm import LanguageModel
    from .prm_endpoint import RewardEndpoint


class RewardModel(Scorer):
    """A process reward model: `RewardModel.load("minimath-prm")`, or a hub model's id.

    body    a causal language model without its head
    head    from hidden states (..., h) in float32 two logits, wrong and right, or z
    family  how the text is read: one of `families.FAMILIES`
    """

    def __init__(
        self, body: Any, head: nn.Module, tokenizer: Any, family: Family
    ) -> None:
        family.check(tokenizer)
        self.body, self.tokenizer, self.family = body, tokenizer, family
        self.head = head if isinstance(head, LogOdds) else LogOdds(head)
        body.set_attn_implementation(NAME)
        self.device = body.device
        self.context = context_of(body.config)
        self.vocabulary: int = body.get_input_embeddings().weight.shape[0]

    @classmethod
    def load(
        cls,
        name: str | Path,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        *,
        family: str | None = None,
        separator: str | None = None,
        revision: str | None = None,
    ) -> "RewardModel":
        """From a shipped name (minimath-prm), a model folder or a hub id: a plain body,
        and its head beside it.

        family     for models that their configuration does not tell apart
        separator  what closes a step, for the family trl
        revision   the hub's branch, tag or commit

        Raises UserError if it is of no family, or if something is missing.
        """
        from transformers import AutoModel

        if probe_file(name):
            raise UserError(
                f"{name} is a probe, which reads a language model's states while it "
                f'writes; load it by Probe.load("{name}", lm)'
            )
        where = locate(name, revision)
        tokenizer, kind = family_at(where, name, family, separator)
        folder = Path(where["pretrained_model_name_or_path"])
        body = load_weights(AutoModel, where, best_device(device), dtype)
        head = load_head(folder, kind, tokenizer, body).to(body.device)
        return cls(body, head, tokenizer, kind)

    @staticmethod
    def connect(url: str, tokenizer: str | Path, **options: Any) -> "RewardEndpoint":
        """The same model behind a server: see `prm_endpoint.connect`."""
        from .prm_endpoint import connect

        return connect(url, tokenizer, **options)

    @classmethod
    def judging(cls, lm: "LanguageModel") -> "RewardModel":
        """A language model as its own reward model, without a second copy of its
        weights: see `families.itself`.
        """
        family = itself(lm.template_args)
        rows = words_of(lm.tokenizer, family)
        out = lm.model.get_output_embeddings()
        bias = None if getattr(out, "bias", None) is None else out.bias[rows]
        head = compared(plain(out.weight)[rows], lm.model.config, bias)
        return cls(lm.model.base_model, head.to(lm.device), lm.tokenizer, family)

    def prompt(self, problem: str) -> list[int]:
        """The ids that every rendering of the problem begins with.

        Raises UserError if they leave no room in the model's context, or if the
        tokenizer does not know a word of the problem.
        """
        refuse_unknown(self.tokenizer, [problem], "the reward model")
        ids, _ = self.family.render(self.tokenizer, problem, ())
        check_known(ids, self.vocabulary)
        if len(ids) >= self.context:
            raise UserError(
                f"the problem has {len(ids)} tokens and the reward model's context is "
                f"{self.context}; shorten it"
            )
        return ids

    def render(
        self, problem: str, steps: Sequence[str], aggregation: str = "last"
    ) -> tuple[list[int], list[int]]:
        """The ids of a partial solution, and the place in them of each step's score.

        The aggregation `model` reads it as one block, which has one score.
        """
        if aggregation not in AGGREGATIONS:
            raise UserError(
                f"there is no aggregation {aggregation!r}; choose one of "
                f"{', '.join(AGGREGATIONS)}"
            )
        if aggregation == "model":
            steps = ["".join(steps)]
        return self.family.render(self.tokenizer, problem, steps)

    @torch.inference_mode()
    def start(self, problems: Sequence[str], copies: int) -> Judgement:
        """Read P problems once each, for N copies of each."""
        prompts = [self.prompt(problem) for problem in problems]
        cache = RaggedCache(len(problems) * copies, self.device)
        cache.read_prompts(self.body, prompts, copies)
        return Judgement.of(list(problems), prompts, cache)

    @torch.inference_mode()
    def extend(
        self,
        judgement: Judgement,
        moved: Tensor,
        steps: Sequence[Sequence[str]],
        aggregation: str = "last",
        states: Tensor | None = None,
    ) -> None:
        """Score what is new in the rows of `moved`, (R,) bool; steps[r] are all of row
        r's steps. The policy's `states` are for a `Probe`.

        Other rows keep their scores. A row too long for the model's context gets -inf.
        Raises UserError if a score is not finite.
        """
        j, rows = judgement, moved.nonzero()[:, 0].tolist()
        fed: dict[int, Rendered] = {}
        missing: dict[int, int] = {}  # the first place of which the score is not there
        j.make_room(max((len(steps[row]) for row in rows), default=0))
        for row in rows:
            problem = j.problems[j.problem_of(row)]
            ids, places = self.render(problem, steps[row] or [""], aggregation)
            known = 0 if aggregation == "model" else j.known[row]
            if len(ids) > self.context:
                j.scores[row, len(places) - 1] = -torch.inf
            elif wanted := [place for place in places[known:] if place != NOWHERE]:
                fed[row], missing[row] = (ids, places), wanted[0]
            j.known[row] = len(places)
        j.follow(list(fed))
        new = {row: j.unread(row, fed[row][0], missing[row]) for row in sorted(fed)}
        self.read(j, new, fed)

    def read(
        self, j: Judgement, new: dict[int, list[int]], fed: dict[int, Rendered]
    ) -> None:
        """Feed the new ids of all rows, in groups of bounded tokens."""
        for group in in_groups([len(ids) for ids in new.values()]):
            some = [list(new)[k] for k in sorted(group)]
            self.feed(j, {row: new[row] for row in some}, {r: fed[r] for r in some})

    def feed(
        self, j: Judgement, new: dict[int, list[int]], fed: dict[int, Rendered]
    ) -> None:
        """One pass over the new ids of some rows, of which `fed` has all. The scores of
        the steps that have a place among the new ones are written.
        """
        slots, pieces = list(new), list(new.values())
        ids = padded(pieces, self.device)
        counts = [len(piece) for piece in pieces]
        output = j.cache.extend(self.body, ids, counts, consecutive(slots))
        at = []  # for each score its place in the pass, and its row and step
        for b, row in enumerate(slots):
            whole, places = fed[row]
            before = len(whole) - len(new[row])
            at += [
                (b, place - before, row, step)
                for step, place in enumerate(places)
                if place >= before
            ]
        b, place, row, step = torch.tensor(at, device=self.device).T
        found = self.head(output.last_hidden_state[b, place].float())
        if not found.isfinite().all():
            raise UserError(
                "the reward model returned NaN or infinite scores; load it in float32, "
                "and check its weights"
            )
        j.scores[row, step] = found


def family_at(
    where: dict[str, Any], name: str | Path, family: str | None, separator: str | None
) -> tuple[Any, Family]:
    """The tokenizer and the family of the model that lies there: no weights are read.

    where  as `loading.locate` returns it; name: what the user calls it
    """
    if "gguf_file" in where:
        raise UserError(
            f"{name} is a .gguf file, and a reward model's head is read from "
            "safetensors; give a folder or a hub id"
        )
    file = Path(where["pretrained_model_name_or_path"]) / "config.json"
    with reading(file):
        architectures = json.loads(file.read_text()).get("architectures") or []
    kind = family_of(architectures, family, separator)
    if kind is None:
        raise UserError(
            f"{name} is not a process reward model that pfref knows; name its family, "
            f"one of {', '.join(FAMILIES)}, or give another model"
        )
    tokenizer = load_tokenizer(where)
    kind.check(tokenizer)
    return tokenizer, kind

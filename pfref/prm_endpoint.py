"""The reward model behind an endpoint: texts are rendered here and read by a server.

A reward head is asked through vLLM's /pooling, which gives every token's raw logits. A
language model's head is asked through /v1/completions for one token after each score's
place, with the log probabilities of the family's two words: their difference is the
log-odds, because the same normaliser stands in both. Probabilities are never asked for,
since above log-odds of 17 they are 1.0 in float32 (see `prm`).

Each request has the whole text up to its last score. vLLM reads it anew for /pooling,
which uses no prefix cache, so that T steps cost T / 2 times what they cost in this
process; /v1/completions finds in the prefix cache what it has read.
"""

import sys
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .cache import RaggedCache
from .client import Client, Pool
from .connection import chosen, listed
from .dialects import NEUTRAL
from .errors import UserError
from .families import Family, LogOdds, words_of
from .judgement import Judgement
from .loading import config_of, context_of, locate
from .prm import RewardModel, family_at
from .readers import Rendered

KEY = "PFREF_PRM_API_KEY"  # the environment variable that holds this server's key
POOLING = (
    "a reward model with a head of its own is served by vLLM: "
    "vllm serve NAME --runner pooling"
)
WORDS = (
    "a reward model that answers by words is served by vLLM as the language model that "
    "it is: vllm serve NAME"
)
SURE = 9999.0  # vLLM's log probability of what is impossible, with its sign changed


class RewardEndpoint(RewardModel):
    """A reward model whose passes are a server's.

    model    its name there
    context  tokens that it takes

    `Judgement.scored` counts as in this process: a problem once, and of each text what
    was not sent before for that path. Its `cache` holds nothing and counts what was
    sent: `tokens`, those that are read anew included, and `calls`, the requests.
    """

    def __init__(
        self,
        client: Client,
        model: str,
        tokenizer: Any,
        family: Family,
        context: int,
        in_flight: int = 64,
    ) -> None:
        family.check(tokenizer)
        self.client, self.model = client, model
        self.tokenizer, self.family, self.context = tokenizer, family, context
        own = isinstance(family.head, str)  # a head, and not two words
        self.words = [] if own else words_of(tokenizer, family)
        self.odds = LogOdds(nn.Identity())
        self.pool = Pool(in_flight)
        self.body = None  # not in this process
        self.vocabulary = sys.maxsize  # the server knows it
        self.device = torch.device("cpu")  # of what is computed here

    def start(self, problems: Sequence[str], copies: int) -> Judgement:
        """As `RewardModel.start`: nothing is asked of the server yet."""
        prompts = [self.prompt(problem) for problem in problems]
        nothing = RaggedCache(len(problems) * copies)
        return Judgement.of(list(problems), prompts, nothing)

    def read(
        self, j: Judgement, new: dict[int, list[int]], fed: dict[int, Rendered]
    ) -> None:
        """As `RewardModel.read`, all rows at once: a request a row, or with words one
        a score.

        Raises UserError if the server does not answer, or not with what was asked.
        """
        stopped = threading.Event()
        asked: dict[Future[Tensor], tuple[int, list[int]]] = {}
        for row in new:
            ids, places = fed[row]
            first = len(ids) - len(new[row])
            due = [(k, place) for k, place in enumerate(places) if place >= first]
            for part in [[one] for one in due] if self.words else [due]:
                at = [place for _, place in part]
                text = ids[: max(at) + 1]
                request = self.pool.submit(self.scores, text, at, stopped)
                asked[request] = row, [step for step, _ in part]
                j.cache.calls += 1
                j.cache.tokens += len(text)
        try:
            wait(asked, return_when=FIRST_EXCEPTION)
            for request, (row, steps) in asked.items():
                if request.done():  # those that are not were overtaken by an error
                    j.scores[row, steps] = request.result()
        except BaseException:
            stopped.set()
            for request in asked:
                request.cancel()
            raise

    def scores(
        self, ids: list[int], places: list[int], stopped: threading.Event | None = None
    ) -> Tensor:
        """The log-odds at some places of a text, (S,); with words at its end only."""
        if self.words:
            found = self.compared(ids, stopped)
        else:
            rows = self.logits(ids, stopped=stopped)
            found = self.odds(rows[self.which(ids, places, len(rows))])
        if not found.isfinite().all():
            raise UserError(
                f"the reward model at {self.client.root} returned NaN or infinite "
                "scores; let it be served in bfloat16 or float32, and check its weights"
            )
        return found

    def logits(
        self,
        ids: list[int],
        activation: bool = False,
        stopped: threading.Event | None = None,
    ) -> Tensor:
        """The head's outputs at every token, (L, 1) or (L, 2) float32; or at every
        separator only, as vLLM sends them for Qwen2ForProcessRewardModel.
        """
        body = pooling_body(self.model, ids, activation)
        return self.client.post("/pooling", body, outputs, stopped)

    def which(self, ids: list[int], places: list[int], rows: int) -> list[int]:
        """Which rows of an answer are those of some places."""
        if rows == len(ids):
            return places
        tag = ids[places[-1]]
        closed = [place for place, token in enumerate(ids) if token == tag]
        if rows != len(closed) or not {*places} <= {*closed}:
            raise UserError(
                f"the server at {self.client.root} gives {rows} rows for {len(ids)} "
                f"tokens, and not one for each, nor for each separator; let its "
                f"step_tag_id be {tag} (--pooler-config)"
            )
        return [closed.index(place) for place in places]

    def compared(self, ids: list[int], stopped: threading.Event | None) -> Tensor:
        """The log-odds of the second word against the first after `ids`, (1,)."""
        body = words_body(self.model, ids, self.words)
        told = self.client.post("/v1/completions", body, log_probabilities, stopped)
        found = [told.get(f"token_id:{word}") for word in self.words]
        if None in found:
            raise UserError(
                f"the server at {self.client.root} does not tell the log probabilities "
                "of words that are named (logprob_token_ids), which newer vLLMs do; "
                "serve the reward model by such a one, or leave --prm-endpoint out"
            )
        wrong, right = torch.tensor(found, dtype=torch.float64)
        if min(wrong, right) <= -SURE:
            return torch.tensor([torch.nan])
        return (right - wrong).float()[None]

    def check_server(self) -> None:
        """Ask for one short text. Raises UserError if the server does not do what is
        needed, or makes probabilities of logits, which nobody could undo.
        """
        ids, places = self.family.render(self.tokenizer, "1 + 1", [*"23456"])
        last = max(places)
        try:
            self.scores(ids[: last + 1], [last])
        except UserError as error:
            if "refuses" not in str(error):
                raise
            hint = WORDS if self.words else POOLING
            raise UserError(f"{error}; {hint}") from error
        if self.words:
            return
        raw = self.logits(ids)
        if bool(((raw >= 0) & (raw <= 1)).all()) and (
            close(raw.sum(1), torch.ones(len(raw)))
            if raw.shape[1] == 2
            else close(raw, self.logits(ids, activation=True))
        ):
            raise UserError(
                f"the server at {self.client.root} gives probabilities where raw "
                "logits are asked for (use_activation false); take a vLLM that knows "
                "this field"
            )


def pooling_body(model: str, ids: list[int], activation: bool) -> dict[str, Any]:
    """For the head's outputs at every token; the server's own task would be classify,
    which gives one output for the whole text.
    """
    return dict(
        model=model,
        input=ids,
        task="token_classify",
        use_activation=activation,
        encoding_format="float",
        add_special_tokens=False,
    )


def words_body(model: str, ids: list[int], words: list[int]) -> dict[str, Any]:
    """For the log probabilities of two words after a text. One token is drawn, and not
    used; every field is neutral, since a server may tell them after its own sampling.
    """
    return NEUTRAL | dict(
        model=model,
        prompt=ids,
        max_tokens=1,
        n=1,
        seed=0,
        temperature=1.0,
        top_k=0,
        repetition_penalty=1.0,
        ignore_eos=True,
        logprobs=len(words),
        logprob_token_ids=words,
        return_tokens_as_token_ids=True,
        add_special_tokens=False,
    )


def outputs(answer: Any) -> Tensor:
    """Of an answer of /pooling, (L, outputs)."""
    rows = torch.tensor(answer["data"][0]["data"], dtype=torch.float32)
    rows = rows.reshape(len(rows), -1) if len(rows) else rows.reshape(0, 1)
    if rows.shape[1] not in (1, 2):
        raise ValueError(f"{rows.shape[1]} numbers a token, not one or two logits")
    return rows


def log_probabilities(answer: Any) -> dict[str, float]:
    """Of an answer of /v1/completions, at its token; empty where there are none."""
    told = (answer["choices"][0]["logprobs"] or {}).get("top_logprobs")
    return dict(told[0]) if told else {}


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-2)  # probabilities may be in bfloat16


def connect(
    url: str,
    tokenizer: str | Path,
    model: str | None = None,
    in_flight: int = 64,
    *,
    family: str | None = None,
    separator: str | None = None,
    revision: str | None = None,
    patience: float = 600,
) -> RewardEndpoint:
    """The reward model that is served at `url`, such as http://localhost:8001/v1.

    tokenizer  the same model's name here: a folder or a hub id. Of it the tokenizer and
               the configuration are read, and no weights
    model      its name there; None if only one is served
    in_flight  requests at once
    family, separator, revision  as for `RewardModel.load`
    patience   seconds for an answer

    A key is taken from the environment's PFREF_PRM_API_KEY. Raises UserError if no
    server answers, if it has no such model, or if it cannot give log-odds.
    """
    if in_flight < 1:
        raise UserError(f"there is at least one request in flight, not {in_flight}")
    where = locate(tokenizer, revision, weights=False)
    own, kind = family_at(where, tokenizer, family, separator)
    client = Client(url, patience, variable=KEY)
    entry = chosen(listed(client), model, client.root)
    context = context_of(config_of(where))
    if isinstance(most := entry.get("max_model_len"), int):  # with words it writes one
        context = min(context, most - (not isinstance(kind.head, str)))
    found = RewardEndpoint(client, entry["id"], own, kind, context, in_flight)
    found.check_server()
    return found

"""The policy behind an endpoint: particles are written by a server, one request a
particle and step, and everything else stays here.

`LanguageModel.connect(url)` finds out which server it is. What a server cannot promise
(another target than its temperature, log probabilities, hidden states) is refused.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

from .client import Client, Pool
from .dialects import ELSEWHERE, LENGTH, Ask, Dialect, Reply, check
from .errors import UserError
from .paths import Paths, Written
from .prompts import check_room, inside, problem_ids
from .settings import Proposal, Settings
from .stepping import BLANK, closers, match_table

LARGEST_SEED = 2**31 - 1


@dataclass
class Flight:
    """P populations of N rows at a server. `steps` has, for each row of a population
    that is at work, its step or the request for it.
    """

    prompts: list[list[int]]
    texts: list[str]
    particles: int
    proposal: Proposal
    copies: int
    table: Tensor
    closers: list[int]  # tokens that may complete the delimiter
    calls: int = 0  # requests
    stopped: threading.Event = field(default_factory=threading.Event)
    steps: dict[int, dict[int, "Future[Written] | Written"]] = field(
        default_factory=dict
    )


class Endpoint:
    """A `Policy` whose tokens are written by a server.

    model       its name there          context     tokens that it takes
    ends        tokens that end a solution
    vocabulary  tokens that it may write
    """

    def __init__(
        self,
        client: Client,
        dialect: Dialect,
        model: str,
        tokenizer: Any,
        ends: Sequence[int],
        context: int,
        vocabulary: int,
        template_args: dict[str, Any] | None = None,
        in_flight: int = 64,
    ) -> None:
        self.client, self.dialect, self.model = client, dialect, model
        self.tokenizer, self.template_args = tokenizer, template_args
        self.ends, self.context, self.vocabulary = list(ends), context, vocabulary
        self.pool = Pool(in_flight)
        self.lock = threading.Lock()  # tokenizers are not made for threads
        self.tables: dict[str, Tensor] = {}
        self.device = torch.device("cpu")  # of what is computed here

    def listen(self, layers: Sequence[int]) -> None:
        """Raises UserError: a server keeps its hidden states."""
        if layers:
            what = "keeps its hidden states"
            raise UserError(ELSEWHERE.format(what=what, option="the probe"))

    def check(self, settings: Settings) -> None:
        """Raises UserError for what a server cannot do."""
        check(settings)

    def prompt(self, problem: str, system: str | None = None) -> list[int]:
        """As `LanguageModel.prompt`."""
        with self.lock:
            ids = problem_ids(self.tokenizer, problem, system, self.template_args)
        check_room(ids, self.context)
        return ids

    def start(
        self,
        prompts: Sequence[Sequence[int]],
        particles: int,
        proposal: Proposal,
        copies: int = 1,
    ) -> Paths:
        """As `LanguageModel.start`: nothing is asked of the server yet."""
        self.check(Settings(proposal=proposal))
        if proposal.delimiter not in self.tables:
            self.tables[proposal.delimiter] = match_table(
                self.tokenizer, self.vocabulary, proposal.delimiter
            )
        paths = Paths.empty(len(prompts) * copies, particles)
        paths.log_p += torch.nan  # nobody tells
        paths.work = Flight(
            [list(prompt) for prompt in prompts],
            [self.text_of(prompt) for prompt in prompts],
            particles,
            proposal,
            copies,
            table := self.tables[proposal.delimiter],
            [] if proposal.step_tokens else closers(table),
        )
        return paths

    def fork(self, paths: Paths, ancestors: Tensor) -> None:
        """As `LanguageModel.fork`: the server finds what it has read by itself."""
        paths.fork(ancestors)

    def extend(
        self,
        paths: Paths,
        active: Tensor,
        sources: Sequence[Generator],
        forced: dict[int, Sequence[int]] | None = None,
    ) -> Tensor:
        """As `LanguageModel.extend`: returns the populations, (P,), whose rows have all
        written their step. Raises UserError if the server does not answer.
        """
        flight: Flight = paths.work
        n = flight.particles
        for p in sorted({row // n for row in active.nonzero()[:, 0].tolist()}):
            if p in flight.steps:
                continue
            # Drawn for all rows, so that a row's seed depends on nothing else.
            seeds = torch.randint(LARGEST_SEED, (n,), generator=sources[p]).tolist()
            flight.steps[p] = {
                row: self.begin(paths, row, seeds[row - p * n], forced or {})
                for row in range(p * n, (p + 1) * n)
                if active[row]
            }
        ready = self.landed(flight)
        done = torch.zeros(paths.shape[0], dtype=torch.bool)
        done[ready] = True
        rows = [row for p in ready for row in flight.steps[p]]
        steps = [
            step.result() if isinstance(step, Future) else step
            for step in (flight.steps[row // n][row] for row in rows)
        ]
        paths.take(done, rows, steps, self.tokenizer)
        for p in ready:
            del flight.steps[p]
        return done

    def landed(self, flight: Flight) -> list[int]:
        """Populations whose requests are all answered, at least one if any is at work.

        An error calls the other requests back.
        """
        while flight.steps:
            requests = {
                p: [step for step in own.values() if isinstance(step, Future)]
                for p, own in flight.steps.items()
            }
            every = [step for own in requests.values() for step in own]
            try:
                for step in every:
                    if step.done():
                        step.result()
                ready = [p for p, own in requests.items() if all(s.done() for s in own)]
                if ready:
                    return sorted(ready)
                wait([s for s in every if not s.done()], return_when=FIRST_COMPLETED)
            except BaseException:
                flight.stopped.set()
                for step in every:
                    step.cancel()
                raise
        return []

    def begin(
        self, paths: Paths, row: int, seed: int, forced: dict[int, Sequence[int]]
    ) -> "Future[Written] | Written":
        """A row's next step: a request, or what is given."""
        flight: Flight = paths.work
        problem = row // flight.particles // flight.copies
        written = list(paths.tokens[row])
        room = min(
            flight.proposal.max_tokens, self.context - len(flight.prompts[problem])
        )
        if row in forced:
            rest = list(forced[row][len(written) :])
            return self.written(*self.first_step(flight, rest), room - len(written))
        return self.pool.submit(
            self.step,
            flight,
            flight.prompts[problem] + written,
            flight.texts[problem] + paths.text(row),
            room - len(written),
            seed,
        )

    def step(
        self, flight: Flight, ids: list[int], text: str, room: int, seed: int
    ) -> Written:
        """A step after `ids`, in as many requests as it takes: neither a delimiter
        after nothing but white space nor a limit of the server's own ends a step.
        """
        p, tokens = flight.proposal, list[int]()
        limit = min(p.step_tokens or p.max_step_tokens, room)
        while True:
            ask = Ask(
                self.model,
                ids + tokens,
                text,
                limit - len(tokens),
                (seed + len(tokens)) % LARGEST_SEED,
                p.temperature,
                [p.delimiter] if p.step_tokens is None else [],
                self.ends,
                flight.closers,
            )
            with self.lock:
                flight.calls += 1
            reply = self.client.post(
                self.dialect.path,
                self.dialect.body(ask),
                self.dialect.reply,
                flight.stopped,
            )
            new = self.tokens_of(flight, reply)
            tokens, text = (tokens + new)[:limit], text + reply.text
            step, complete = self.first_step(flight, tokens)
            cut = reply.tokens is None and reply.why == LENGTH
            if complete or cut or len(tokens) >= limit:
                return self.written(step, complete, room)
            if not new:
                raise UserError(
                    f"the server at {self.client.root} stopped without a token; "
                    f"is it {self.dialect.name}? --dialect names another kind"
                )

    def tokens_of(self, flight: Flight, reply: Reply) -> list[int]:
        """A reply's tokens, with the end token where a text has none. After one that
        ends nothing here (llama.cpp stops at <|fim_pad|>) another request goes on.
        """
        tokens = reply.tokens
        if tokens is None:
            with self.lock:
                tokens = inside(self.tokenizer, reply.text) if reply.text else []
            closed = tokens[-1:] and tokens[-1] in flight.closers
            ended = tokens[-1:] and tokens[-1] in self.ends
            if reply.why != LENGTH and not closed and not ended:
                tokens = [*tokens, self.ends[0]]
        if any(token >= self.vocabulary for token in tokens):
            raise UserError(
                "the server writes tokens that --model's tokenizer does not have: it "
                "serves another model"
            )
        return tokens

    def first_step(self, flight: Flight, tokens: list[int]) -> tuple[list[int], bool]:
        """The beginning of `tokens` up to the end of a step, and whether it is one: the
        server's word is not needed for that.
        """
        p, state, last = flight.proposal, BLANK, len(flight.table) - 1
        for k, token in enumerate(tokens, 1):
            state = int(flight.table[state, token]) if p.step_tokens is None else state
            whole = state == last if p.step_tokens is None else k >= p.step_tokens
            if whole or token in self.ends:
                return tokens[:k], True
        return tokens, False

    def written(self, step: list[int], complete: bool, room: int) -> Written:
        """A step as `LanguageModel` has it: ended, or cut by a limit, or neither."""
        ended = bool(step) and step[-1] in self.ends
        cut = not ended and (not complete or len(step) >= room)
        return Written(step, ended, cut, 0.0, torch.nan)

    def text_of(self, prompt: Sequence[int]) -> str:
        """The text that a server's tokenizer reads as this prompt, for servers that
        take no ids. Raises UserError if there is none.
        """
        if self.dialect.ids:
            return ""
        with self.lock:
            whole = self.tokenizer.decode(prompt, clean_up_tokenization_spaces=False)
            begin = self.tokenizer.bos_token or ""
            for text in (whole, whole.removeprefix(begin)):
                if self.tokenizer(text)["input_ids"] == list(prompt):
                    return text
        raise UserError(
            f"{self.dialect.name} takes text only, and its tokenizer reads this prompt "
            "otherwise; serve the model by vllm, sglang or llama.cpp"
        )

"""SmolLM2-135M-Instruct from its .gguf file, where the weights are at hand:
`PFREF_WEIGHTS=folder pytest -m weights`.
"""

import os
from pathlib import Path

import pytest
import torch

from pfref import LanguageModel, Proposal, RewardModel, solve
from pfref.randomness import generators

pytestmark = pytest.mark.weights
PROBLEM = (
    "A bag holds 3 red and 5 blue marbles. Two marbles are drawn without "
    "replacement. What is the probability that both are red?"
)


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    file = Path(os.environ["PFREF_WEIGHTS"]) / "smollm2-135m-instruct.gguf"
    return LanguageModel.load(file, dtype="float32")


def test_solve_takes_steps_that_end_at_blank_lines(lm: LanguageModel) -> None:
    proposal = Proposal(temperature=0.8, max_step_tokens=200, max_tokens=300)
    found = solve(
        PROBLEM,
        lm,
        RewardModel.judging(lm),
        4,
        seed=1,
        proposal=proposal,
        system="Solve the problem step by step. Separate steps by blank lines.",
    )
    assert found.cost.prompt_tokens == len(
        lm.prompt(
            PROBLEM, "Solve the problem step by step. Separate steps by blank lines."
        )
    )
    several = [p for p in found.particles if len(p.steps) > 1]
    assert several
    for particle in several:
        for step in particle.steps[:-1]:
            assert "\n\n" in step.lstrip() and "\n\n" not in step.strip()


@torch.inference_mode()
def test_likeliest_tokens_are_those_of_one_full_forward(lm: LanguageModel) -> None:
    """With forks between the steps, which change nothing at temperature 0."""
    prompt = lm.prompt(PROBLEM)
    paths = lm.start([prompt], 3, Proposal(temperature=0, step_tokens=20))
    for _ in range(3):
        lm.extend(paths, ~(paths.ended | paths.truncated), generators(0, 1))
        lm.fork(paths, torch.tensor([2, 0, 0]))
    for row in range(3):
        ids = list(paths.tokens[row])
        assert len(ids) == 60
        logits = lm.model(input_ids=torch.tensor([prompt + ids])).logits[0]
        logits = logits[len(prompt) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(ids)[:, None])[:, 0]
        assert (chosen >= logits.amax(1) - 1e-3 * logits.abs().max()).all()

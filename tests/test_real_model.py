"""SmolLM2-135M-Instruct from its .gguf file, where the weights are at hand: `PFREF_WEIGHTS=folder pytest -m weights`."""

import os
from pathlib import Path

import pytest
import torch

from pfref import LanguageModel, Proposal, RewardModel, solve

pytestmark = pytest.mark.weights
PROBLEM = "A bag holds 3 red and 5 blue marbles. Two marbles are drawn without replacement. What is the probability that both are red?"


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return LanguageModel.load(
        Path(os.environ["PFREF_WEIGHTS"]) / "smollm2-135m-instruct.gguf"
    )


def test_solve_takes_steps_that_end_at_blank_lines(lm: LanguageModel) -> None:
    proposal = Proposal(temperature=0.8, max_step_tokens=200, max_tokens=500)
    found = solve(
        PROBLEM,
        lm,
        RewardModel.load("minimath-prm"),
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


def test_step_by_step_equals_one_full_forward(lm: LanguageModel) -> None:
    from pfref.randomness import generators

    proposal, prompt = Proposal(step_tokens=40), lm.prompt(PROBLEM)
    population = lm.start([prompt], 3, proposal)
    for _ in range(2):
        lm.extend(population, ~(population.ended), proposal, generators(0, 1))
        lm.fork(population, torch.tensor([2, 0, 0]))
    lm.extend(population, ~population.ended, Proposal(step_tokens=1), generators(1, 1))
    for slot, row in enumerate(population.cache.particle.tolist()):
        ids = torch.tensor([prompt + population.solution(row)])
        full = lm.model(input_ids=ids).logits[0, -1]
        assert torch.allclose(
            population.logits[slot],
            full,
            atol=1e-3 * float(full.abs().max()),
            rtol=1e-4,
        )

"""Runs pfref on the pretended GPU; `test_device.py` calls it in a process of its own.

    python -m tests.on_pretended_gpu solve, others, evaluation or waits [LAYERS]

What a GPU would refuse raises here. Registering the device changes torch for the whole
process, so no other test may share it.
"""

import copy
import sys
from typing import Any

import torch

from benchmarks.engine import proposal_alone
from benchmarks.rivals import one_reward_pass
from pfref import LanguageModel, Proposal, RewardModel, solve
from pfref.baselines import greedy
from pfref.minimath import evaluate
from pfref.minimath.problems import load_set
from pfref.prm import AGGREGATIONS
from pfref.probe import Probe
from pfref.randomness import generators
from pfref.reasoning import POTENTIALS
from tests.enumerable import PROBLEM, PROPOSAL, tokenizer_of, world
from tests.pretended_gpu import PretendedGPU

Pair = tuple[LanguageModel, RewardModel]


def moved(gpu: PretendedGPU, lm: LanguageModel, prm: RewardModel) -> Pair:
    """Both models on the GPU."""
    body, head = copy.deepcopy(prm.body), copy.deepcopy(prm.head)
    return (
        LanguageModel(gpu.move(copy.deepcopy(lm.model)), lm.tokenizer),
        RewardModel(gpu.move(body), gpu.move(head), prm.tokenizer, prm.family),
    )


def check_solve(host: Pair) -> None:
    """With every potential and aggregation, as on the host."""
    pairs = {(name, "last") for name in POTENTIALS} | {
        ("odds", a) for a in AGGREGATIONS
    }
    for potential, aggregation in sorted(pairs):
        options: dict[str, Any] = dict(proposal=PROPOSAL, threshold=1.0)
        options |= dict(potential=potential, aggregation=aggregation)
        expected = solve([PROBLEM] * 2, host[0], host[1], 4, **options)
        with PretendedGPU() as gpu:
            lm, prm = moved(gpu, *host)
            assert lm.device.type == prm.device.type == "gpu" and lm.look == 8
            found = solve([PROBLEM] * 2, lm, prm, 4, **options)
        for a, b in zip(found, expected, strict=True):
            assert [p.text for p in a.particles] == [p.text for p in b.particles]
            assert abs(a.log_evidence - b.log_evidence) < 1e-4


def check_others(host: Pair) -> None:
    """Greedy, another temperature's price, fixed steps, a probe."""
    with PretendedGPU() as gpu:
        lm, prm = moved(gpu, *host)
        assert greedy([PROBLEM] * 3, lm, 9) == greedy([PROBLEM] * 3, host[0], 9)
        dear = Proposal(temperature=1.3, target_temperature=0.9, max_tokens=6)
        solve([PROBLEM] * 2, lm, prm, 4, proposal=dear)
        fixed = Proposal(step_tokens=2, max_tokens=8)
        solve([PROBLEM] * 2, lm, prm, 4, proposal=fixed, aggregation="model")
        said = torch.linspace(-1, 1, 16), torch.tensor(0.3)
        found = [by_probe(lm, *said), by_probe(host[0], *said)]
    assert found[0] == found[1]


def by_probe(lm: LanguageModel, *said: torch.Tensor) -> list[tuple[str, float]]:
    """Texts and rewards of particles that the policy's own states weigh."""
    options: dict[str, Any] = dict(proposal=PROPOSAL, threshold=1.0)
    found = solve([PROBLEM] * 2, lm, Probe(lm, 1, *said), 4, **options)
    lm.listen(())
    return [(p.text, round(p.reward, 4)) for s in found for p in s.particles]


def check_evaluation(host: Pair) -> None:
    """MiniMath's evaluation and what the engine benchmark times."""
    small, shipped = (
        LanguageModel.load("minimath-small"),
        RewardModel.load("minimath-prm"),
    )
    problems = load_set("minimath500")[:2]
    texts = [p.problem for p in problems]
    with PretendedGPU() as gpu:
        lm, prm = moved(gpu, small, shipped)
        evaluate.SAMPLES = 2
        evaluate.judge_report(evaluate.judged_steps(lm, prm, problems))
        evaluate.answers(lm, problems, 2, 0.8)
        proposal_alone(lm, texts, 2)
        one_reward_pass(prm, [prm.prompt(text) for text in texts])


def check_waits(host: Pair, layers: int = 2) -> None:
    """How often a token makes the host wait, and what it launches."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = dict(vocab_size=1000, hidden_size=48, intermediate_size=64)
    sizes |= dict(
        num_hidden_layers=layers, num_attention_heads=12, num_key_value_heads=2
    )
    model = Qwen2ForCausalLM(Qwen2Config(**sizes)).eval().requires_grad_(False)
    with PretendedGPU() as gpu:
        lm = LanguageModel(gpu.move(model), tokenizer_of())
        paths = lm.start([[3] * 50], 4, Proposal(step_tokens=200))
        gpu.waits.clear()
        gpu.launches.clear()
        before = paths.work.cache.calls
        lm.extend(paths, torch.ones(4, dtype=torch.bool), generators(0, 1))
        tokens = paths.work.cache.calls - before
        waits, launches = sum(gpu.waits.values()), sum(gpu.launches.values())
    print(f"{waits / tokens:.3f} waits and {launches / tokens:.0f} launches a token")
    assert tokens == 200 and waits / tokens <= 0.2, gpu.waits


CHECKS = {
    "solve": check_solve,
    "others": check_others,
    "evaluation": check_evaluation,
    "waits": check_waits,
}

if __name__ == "__main__":
    CHECKS[sys.argv[1]](world(), *map(int, sys.argv[2:]))

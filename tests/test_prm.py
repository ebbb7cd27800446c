"""The reward model: incremental scores against full passes, counted tokens, log-odds, aggregation, bad input."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import Qwen2Config, Qwen2Model

from pfref.errors import UserError
from pfref.prm import FAMILIES, RewardModel, lowest, new_head, product
from tests.enumerable import FAMILY, tokenizer_of, world

STEPS = [["a", "ab", "b"], ["bbb", "a", "ba"], ["ab", "bb", "aaab"], ["b", "b", "b"]]


def full_pass(prm: RewardModel, problem: str, steps: list[str]) -> list[float]:
    """Every step's log-odds from one pass over the whole text, without a cache."""
    ids, ends = prm.prompt(problem), []
    for k, step in enumerate(steps):
        ids = ids + prm.step_tokens(step, k == 0)
        ends.append(len(ids) - 1)
    logits = prm.head(
        prm.body(input_ids=torch.tensor([ids])).last_hidden_state[0, ends].float()
    )
    return (logits[:, 1] - logits[:, 0]).tolist()


def everyone(rows: int) -> torch.Tensor:
    return torch.ones(rows, dtype=torch.bool)


def test_step_by_step_equals_one_full_pass() -> None:
    _, prm = world()
    judgement = prm.start(["abba", "ba"], 2)
    for t in range(3):
        prm.extend(judgement, everyone(4), [steps[t] for steps in STEPS])
    for row, steps in enumerate(STEPS):
        assert judgement.scores[row].tolist() == pytest.approx(
            full_pass(prm, ["abba", "ba"][row // 2], steps), abs=1e-5
        )


def test_forks_and_rows_that_stop() -> None:
    _, prm = world()
    judgement = prm.start(["abba"], 4)
    texts = [steps[:1] for steps in STEPS]
    prm.extend(judgement, everyone(4), [t[-1] for t in texts])
    ancestors = torch.tensor([2, 2, 0, 3])
    prm.fork(judgement, ancestors)
    texts = [list(texts[a]) for a in ancestors]
    moved = torch.tensor([True, False, True, True])
    for t in (1, 2):
        for row in moved.nonzero()[:, 0].tolist():
            texts[row].append(STEPS[row][t])
        prm.extend(judgement, moved, [t[-1] for t in texts])
    for row in (0, 2, 3):
        assert judgement.scores[row].tolist() == pytest.approx(
            full_pass(prm, "abba", texts[row]), abs=1e-5
        )
    assert judgement.scores[1].tolist() == pytest.approx(
        full_pass(prm, "abba", texts[1]) * 3, abs=1e-5
    )  # its score stands


def test_each_token_once_counted_in_the_forward() -> None:
    _, prm = world()
    seen = []
    hook = prm.body.register_forward_pre_hook(
        lambda m, a, k: seen.append(k["input_ids"].shape), with_kwargs=True
    )
    judgement = prm.start(["abba"], 4)
    for t in range(3):
        prm.extend(judgement, everyone(4), ["ab"] * 4)
        prm.fork(judgement, torch.tensor([1, 1, 3, 0]))
    hook.remove()
    assert (
        sum(rows * width for rows, width in seen) == 4 + 3 * 4 * 3
    )  # the prompt once, then two letters and a separator
    assert judgement.cache.tokens == 4 + 36 and int(judgement.scored.sum()) == 40


def test_model_aggregation_reads_one_block() -> None:
    """One separator at the end of the whole partial solution: its score, and no separator left in the cache."""
    _, prm = world(aggregation="model")
    judgement = prm.start(["abba"], 1)
    for t, step in enumerate(["ab", "b", "aab"]):
        prm.extend(judgement, everyone(1), [step])
        text = "\n\n".join(["ab", "b", "aab"][: t + 1])
        ids = prm.prompt("abba") + prm.tokenizer(text)["input_ids"] + [prm.separator]
        logits = prm.head(
            prm.body(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
        )
        assert prm.log_odds(judgement).item() == pytest.approx(
            (logits[1] - logits[0]).item(), abs=1e-5
        )


def test_aggregations() -> None:
    z = torch.tensor([[1.0, -2.0, 0.5], [12.0, 9.0, 20.0]])
    assert lowest(z).tolist() == [-2.0, 9.0]
    r = torch.sigmoid(z.double()).prod(-1)
    assert product(z).tolist() == pytest.approx((r / (1 - r)).log().tolist(), rel=1e-9)


def test_log_odds_survive_where_probabilities_round_to_one() -> None:
    """PEERS 7: from the two logits in float32, also for a body in bfloat16; 9 and 12 both have r = 1.0 in bfloat16."""
    _, prm = world()
    body = type(prm.body)(prm.body.config).bfloat16().eval()
    head = nn.Linear(16, 2)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([-2.0, 10.0]))
    sure = RewardModel(body, head, prm.tokenizer, FAMILY)
    judgement = sure.start(["ab"], 1)
    sure.extend(judgement, everyone(1), ["a"])
    assert (
        judgement.scores.dtype == torch.float32
        and sure.log_odds(judgement).item() == 12.0
    )


def test_a_row_beyond_the_context_is_ruled_out_alone() -> None:
    _, prm = world()
    judgement = prm.start(["abba"], 2)
    prm.extend(judgement, everyone(2), ["a", "ab" * 40])
    assert (
        judgement.scores[0].isfinite().all() and judgement.scores[1, -1] == -torch.inf
    )


@pytest.fixture
def qwen_folder(tmp_path):
    """A random model in the layout of Qwen/Qwen2.5-Math-PRM-7B."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = Qwen2Model(
            Qwen2Config(
                vocab_size=5,
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=64,
            )
        )
        head = new_head(16)
    tensors = {f"model.{k}": v for k, v in body.state_dict().items()} | {
        f"score.{k}": v for k, v in head.state_dict().items()
    }
    save_file(
        {k: v.contiguous() for k, v in tensors.items()},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    body.config.architectures = ["Qwen2ForProcessRewardModel"]
    body.config.auto_map = {
        "AutoModel": "modeling_qwen2_rm.Qwen2ForProcessRewardModel"
    }  # remote code, never run
    body.config.save_pretrained(tmp_path)
    tokenizer_of("<extra_0>").save_pretrained(tmp_path)
    return tmp_path, body.eval(), head


def test_qwen_layout_loads_without_remote_code(qwen_folder) -> None:
    folder, body, head = qwen_folder
    prm = RewardModel.load(folder)
    judgement = prm.start(["abba"], 1)
    prm.extend(judgement, everyone(1), ["ab"])
    ids = prm.prompt("abba") + prm.step_tokens("ab", True)
    logits = head(body(input_ids=torch.tensor([ids])).last_hidden_state[0, -1])
    assert judgement.scores[0, 0].item() == pytest.approx(
        (logits[1] - logits[0]).item(), abs=1e-5
    )


def test_bad_reward_models_are_refused_in_one_line(qwen_folder) -> None:
    folder, body, head = qwen_folder
    with pytest.raises(UserError, match="lacks its separator"):
        RewardModel(body, head, tokenizer_of(), FAMILY)
    with pytest.raises(UserError, match="no aggregation"):
        RewardModel(body, head, tokenizer_of("<extra_0>"), FAMILY, "mean")
    config = json.loads((folder / "config.json").read_text()) | {
        "architectures": ["LlamaForCausalLM"]
    }
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="not a process reward model"):
        RewardModel.load(folder)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_broken_scores_are_reported(broken: float) -> None:
    _, prm = world()
    head = nn.Linear(16, 2)
    with torch.no_grad():
        head.bias.fill_(0.0)
        head.bias[1] = broken
    bad = RewardModel(prm.body, head, prm.tokenizer, FAMILY)
    judgement = bad.start(["ab"], 2)
    with pytest.raises(UserError, match="NaN or infinite"):
        bad.extend(judgement, everyone(2), ["a", "b"])


def test_the_shipped_reward_model_step_by_step_equals_one_full_pass() -> None:
    prm = RewardModel.load("minimath-prm")
    problem, steps = "Compute (53-34)*9.", ["53-34=19\n\n", "19*9=181, so \\boxed{181}"]
    judgement = prm.start([problem], 3)
    for step in steps:
        prm.extend(judgement, everyone(3), [step] * 3)
        prm.fork(judgement, torch.tensor([2, 0, 0]))
    for row in range(3):
        assert judgement.scores[row].tolist() == pytest.approx(
            full_pass(prm, problem, steps), abs=1e-4
        )


def test_families_are_data() -> None:
    assert all(len(f.separator) and f.head.endswith(".") for f in FAMILIES.values())

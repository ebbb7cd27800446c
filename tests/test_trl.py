"""A reward model really trained by TRL, read as it was trained: needs `pip install
trl==1.13.0`, the last version that has a PRMTrainer.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForTokenClassification, Qwen2Config, Qwen2ForCausalLM

from pfref import RewardModel
from tests.hub_layouts import qwen_tokenizer

trl = pytest.importorskip("trl.experimental.prm")
datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = dict(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
)
ROWS, TIMES, BATCH = 1024, 10, 32  # ten seconds of one core


def sums(rng: random.Random) -> dict[str, Any]:
    """Four sums of small digits, each of them right or one or two too large."""
    steps, labels = [], []
    for _ in range(4):
        a, b = rng.randint(1, 4), rng.randint(1, 4)
        right = rng.random() < 0.5
        steps.append(f"{a}+{b}={a + b if right else (a + b + rng.randint(1, 2)) % 10}")
        labels.append(right)
    return {"prompt": "Find the sums.", "completions": steps, "labels": labels}


@dataclass
class Trained:
    model: Any  # as TRL left it in memory
    folder: Path
    separator: str

    def recipe(self, row: dict[str, Any]) -> list[float]:
        """The log-odds of every step: one plain pass over TRL's own ids, read where
        TRL put the labels.
        """
        fed = trl.PRMTrainer.tokenize_row(
            row,
            tokenizer=qwen_tokenizer(),
            step_separator=self.separator,
            max_length=None,
            max_completion_length=None,
            train_on_last_step_only=False,
            is_eval=True,
        )
        places = [k for k, label in enumerate(fed["labels"]) if label != -100]
        with torch.no_grad():
            logits = self.model(input_ids=torch.tensor([fed["input_ids"]])).logits
        return (logits[0, places, 1] - logits[0, places, 0]).tolist()


@pytest.fixture(scope="module", params=["\n", "\n\n"], ids=["newline", "blank line"])
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    """From a language model's folder, as a user would begin with the policy."""
    folder, rng = tmp_path_factory.mktemp("trl"), random.Random(1)
    tokenizer = qwen_tokenizer()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        config = Qwen2Config(vocab_size=len(tokenizer), **SMALL)
        Qwen2ForCausalLM(config).save_pretrained(folder / "policy")
        base = AutoModelForTokenClassification.from_pretrained(
            folder / "policy", num_labels=2, pad_token_id=tokenizer.pad_token_id
        )
        trainer = trl.PRMTrainer(
            model=base,
            processing_class=tokenizer,
            train_dataset=datasets.Dataset.from_list([sums(rng) for _ in range(ROWS)]),
            args=trl.PRMConfig(
                str(folder / "run"),
                step_separator=request.param,
                learning_rate=3e-3,
                per_device_train_batch_size=BATCH,
                num_train_epochs=TIMES,
                gradient_checkpointing=False,
                bf16=False,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
            ),
        )
        trainer.train()
        trainer.save_model(str(folder / "prm"))
    return Trained(trainer.model.eval(), folder / "prm", request.param)


def test_scores_are_those_of_the_pass_that_trl_trains(trained: Trained) -> None:
    """At every step, for rows out of step and forked; and what is right scores above
    what is wrong.
    """
    named = {} if trained.separator == "\n" else {"separator": trained.separator}
    for prm in (  # with the family told by its architecture, and named
        RewardModel.load(trained.folder, dtype="float32", **named),
        RewardModel.load(
            trained.folder, dtype="float32", family="trl", separator=trained.separator
        ),
    ):
        compare(prm, trained)


def compare(prm: RewardModel, trained: Trained) -> None:
    rng = random.Random(2)
    rows = [sums(rng) for _ in range(24)]
    judgement = prm.start([rows[0]["prompt"]], len(rows))
    for t in range(4):
        for some in ([k % 3 == 0 for k in range(24)], [k % 3 > 0 for k in range(24)]):
            texts = [
                [f"{text}\n\n" for text in r["completions"][: t + 1]] for r in rows
            ]
            prm.extend(judgement, torch.tensor(some), texts)
    ancestors = torch.tensor([rng.randrange(24) for _ in range(24)])
    prm.fork(judgement, ancestors)
    found: dict[bool, list[float]] = {True: [], False: []}
    for row, ancestor in enumerate(ancestors.tolist()):
        right = trained.recipe(rows[ancestor])
        scores = judgement.scores[row, :4].tolist()
        assert len(right) == 4
        assert scores == pytest.approx(right, abs=1e-4)
        for label, score in zip(rows[ancestor]["labels"], scores, strict=True):
            found[label].append(score)
    assert min(found[True]) > max(found[False])

"""How each family of reward models is fed and read, coded from what was published with
it: one plain forward pass over the whole text, with the tokenizer's own calls.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForTokenClassification

from pfref.prm import RewardModel
from pfref.readers import QUESTION
from tests.hub_layouts import (
    language_model,
    llama_tokenizer,
    mistral_tokenizer,
    qwen_tokenizer,
    token_classifier,
    with_score,
    with_value_head,
)

Recipe = Callable[[str, list[str]], list[float]]  # (problem, exact steps) -> log-odds


@dataclass
class Published:
    prm: RewardModel
    recipe: Recipe
    separator: list[int]  # the ids that close a step, if there are such


def two(logits: Tensor, right: int = 1, wrong: int = 0) -> Tensor:
    return logits[..., right].float() - logits[..., wrong].float()


def qwen(folder: Path, system: str | None, **named: Any) -> Published:
    body, head = with_score(folder, "Qwen2ForProcessRewardModel", 2)
    tokenizer = qwen_tokenizer()

    def recipe(problem: str, steps: list[str]) -> list[float]:
        said = [{"role": "system", "content": system}] if system else []
        answer = "".join(step.strip("\n") + "<extra_0>" for step in steps)
        said += [
            {"role": "user", "content": problem},
            {"role": "assistant", "content": answer},
        ]
        text = tokenizer.apply_chat_template(said, tokenize=False)
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        mask = ids[0] == tokenizer.convert_tokens_to_ids("<extra_0>")
        return two(head(body(input_ids=ids).last_hidden_state[0, mask])).tolist()

    separator = tokenizer.convert_tokens_to_ids(["<extra_0>"])
    return Published(
        RewardModel.load(folder, dtype="float32", **named), recipe, separator
    )


def skywork(folder: Path) -> Published:
    body, head = with_value_head(folder)
    prm = RewardModel.load(folder, dtype="float32")
    encode = prm.tokenizer.encode

    def of_prefix(problem: str, text: str) -> float:
        ids = encode(prm.tokenizer.bos_token + problem + "\n")
        for line in text.split("\n"):
            ids += (encode(line) if line else []) + [encode("\n")[-1]]
        hidden = body(input_ids=torch.tensor([ids])).last_hidden_state
        return float(head(hidden[0, -1]))

    def recipe(problem: str, steps: list[str]) -> list[float]:
        prefixes = ["".join(steps[: k + 1]) for k in range(len(steps))]
        return [of_prefix(problem, text.rstrip("\n")) for text in prefixes]

    return Published(prm, recipe, [])


def math_shepherd(folder: Path) -> Published:
    lm, tokenizer = language_model(folder, mistral_tokenizer()), mistral_tokenizer()
    right, wrong = tokenizer.encode("+ -")[1:]
    tag = tokenizer.encode("ки")[-1]

    def recipe(problem: str, steps: list[str]) -> list[float]:
        words = [step.rstrip() for step in steps]
        ends = [step[len(text) :] for step, text in zip(steps, words, strict=True)]
        said = [f"{text} ки{end}" for text, end in zip(words, ends, strict=True)]
        ids = torch.tensor([tokenizer.encode(f"{problem} {''.join(said)}")])
        return two(lm(input_ids=ids).logits[ids == tag], right, wrong).tolist()

    return Published(
        RewardModel.load(folder, dtype="float32", family="math-shepherd"), recipe, [tag]
    )


def rlhflow(folder: Path) -> Published:
    lm, tokenizer = language_model(folder, llama_tokenizer()), llama_tokenizer()
    right, wrong = tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]

    def recipe(problem: str, steps: list[str]) -> list[float]:
        found, said = [], []
        for k, step in enumerate(steps):
            text = step.strip("\n")
            said.append({"role": "user", "content": text if k else f"{problem} {text}"})
            said.append({"role": "assistant", "content": "+"})
            text = tokenizer.apply_chat_template(said, tokenize=False)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            logits = lm(input_ids=torch.tensor([ids])).logits[0, -3]
            found.append(float(two(logits, right, wrong)))
        return found

    return Published(
        RewardModel.load(folder, dtype="float32", family="rlhflow"), recipe, []
    )


def versaprm(folder: Path) -> Published:
    """The 3B one has tied embeddings."""
    lm = language_model(folder, llama_tokenizer(), tied=True)
    tokenizer = llama_tokenizer()
    right, wrong = tokenizer.encode("+")[-1], tokenizer.encode("-")[-1]
    separator = tokenizer.encode(" \n\n\n\n")[-1]

    def recipe(problem: str, steps: list[str]) -> list[float]:
        solution = "".join(f"{step.strip()} \n\n\n\n" for step in steps)
        ids = torch.tensor([tokenizer.encode(f"{problem.strip()} \n\n{solution}")])
        return two(lm(input_ids=ids).logits[ids == separator], right, wrong).tolist()

    return Published(
        RewardModel.load(folder, dtype="float32", family="versaprm"),
        recipe,
        [separator],
    )


def universal(folder: Path) -> Published:
    body, head = with_score(folder, "Qwen2ForRewardModel", 1)
    tokenizer = qwen_tokenizer()

    def of_prefix(problem: str, steps: list[str]) -> float:
        hint = "There is no reference answer for this question."
        asked = f"{problem}\n\n###\n\nThe reference answer is: {hint}"
        said = [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": asked},
        ]
        text = tokenizer.apply_chat_template(
            said, tokenize=False, add_generation_prompt=True
        )
        answer = "\n\n".join(step.removesuffix("\n\n") for step in steps) + "\n\n"
        ids = tokenizer(text)["input_ids"] + tokenizer(answer)["input_ids"]
        ids = torch.tensor([[*ids, tokenizer.eos_token_id]])
        return float(head(body(input_ids=ids).last_hidden_state[0, -1]))

    def recipe(problem: str, steps: list[str]) -> list[float]:
        return [of_prefix(problem, steps[: k + 1]) for k in range(len(steps))]

    return Published(RewardModel.load(folder, dtype="float32"), recipe, [])


def trl(folder: Path, tokenizer: Any, separator: str | None, written: str) -> Published:
    token_classifier(folder, tokenizer)
    model = AutoModelForTokenClassification.from_pretrained(folder)
    close = tokenizer.encode(written, add_special_tokens=False)

    def recipe(problem: str, steps: list[str]) -> list[float]:
        ids = tokenizer(problem, add_special_tokens=False)["input_ids"]
        if tokenizer.bos_token_id is not None:
            ids = [tokenizer.bos_token_id, *ids]
        ends = []
        for step in steps:
            text = step.strip("\n")
            ids = ids + tokenizer(text, add_special_tokens=False)["input_ids"] + close
            ends.append(len(ids) - 1)
        with torch.no_grad():
            logits = model.eval()(input_ids=torch.tensor([ids])).logits[0, ends]
        return two(logits).tolist()

    return Published(
        RewardModel.load(folder, dtype="float32", separator=separator), recipe, close
    )


def itself(folder: Path) -> Published:
    tokenizer = qwen_tokenizer()
    lm = language_model(folder, tokenizer)
    yes, no = tokenizer.convert_tokens_to_ids(["Yes", "No"])

    def of_prefix(problem: str, text: str) -> float:
        roles = ("user", problem), ("assistant", text), ("user", QUESTION)
        said = [{"role": role, "content": content} for role, content in roles]
        text = tokenizer.apply_chat_template(
            said, tokenize=False, add_generation_prompt=True
        )
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        return float(two(lm(input_ids=ids).logits[0, -1], yes, no))

    def recipe(problem: str, steps: list[str]) -> list[float]:
        prefixes = ["".join(steps[: k + 1]) for k in range(len(steps))]
        return [of_prefix(problem, text.strip("\n")) for text in prefixes]

    return Published(
        RewardModel.load(folder, dtype="float32", family="self"), recipe, []
    )


BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
MAKE: dict[str, Callable[[Path], Published]] = {
    "qwen": lambda folder: qwen(folder, BOXED),
    "reasonflux": lambda folder: qwen(folder, None, family="reasonflux"),
    "skywork": skywork,
    "math-shepherd": math_shepherd,
    "rlhflow": rlhflow,
    "versaprm": versaprm,
    "universal": universal,
    "trl": lambda folder: trl(folder, qwen_tokenizer(), None, "\n"),
    "trl with two": lambda folder: trl(folder, mistral_tokenizer(), "\n\n", "\n\n"),
    "self": itself,
}

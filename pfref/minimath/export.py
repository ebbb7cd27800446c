"""Write trained models in half precision, as folders that `from_pretrained` loads.

The language models are written as Llama models with biases: the same function, but
transformers 5 replaces the tokenizer of any model of type qwen2 by Qwen's own, whatever
its tokenizer.json says.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2ForCausalLM,
)


def trained(model: nn.Module, folder: Path) -> nn.Module:
    """Put what `fit` saved into `model`."""
    tensors = load_file(folder / "training.safetensors")
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(tensors[f"model/{name}"])
    return model.eval()


def as_llama(model: Qwen2ForCausalLM) -> LlamaForCausalLM:
    """The same function as a Llama model: Qwen2's biases on queries, keys and values,
    and a zero one on the output.
    """
    c = model.config
    names = (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "tie_word_embeddings",
        "max_position_embeddings",
        "eos_token_id",
        "pad_token_id",
        "bos_token_id",
        "rms_norm_eps",
        "rope_parameters",
    )
    twin = LlamaForCausalLM(
        LlamaConfig(attention_bias=True, **{name: getattr(c, name) for name in names})
    )
    missing, unexpected = twin.load_state_dict(model.state_dict(), strict=False)
    assert not unexpected and all(name.endswith("o_proj.bias") for name in missing)
    for name in missing:
        nn.init.zeros_(twin.get_parameter(name))
    return twin.eval()


def export_language_model(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> None:
    as_llama(model).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def export_reward_model(
    body: PreTrainedModel,
    head: nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
) -> None:
    """In Qwen2.5-Math-PRM's layout: the body's tensors under `model.`, the head's under
    `score.`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": p for name, p in body.state_dict().items()}
    tensors |= {f"score.{name}": p for name, p in head.state_dict().items()}
    save_file(
        {name: p.half().contiguous() for name, p in tensors.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    body.config.architectures = ["Qwen2ForProcessRewardModel"]
    body.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

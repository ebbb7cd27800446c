"""Tiny random checkpoints in the layouts of reward models on the hub, with tokenizers
of their kinds: the same pre-tokenisers and templates, few tokens.
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForTokenClassification,
    Qwen2Model,
)

LINES = (
    "so we have the sum of 12 and 34 which is 46 then x = 3y - 7, hence $x^2 + 1$",
    "Step 1: Therefore \\boxed{46}. Let us compute f(x) for every prime p, é 中 + -",
)
WORDS = " ".join(LINES).split()
CORPUS = [*LINES, " ".join(reversed(WORDS)), "a ки + - b ки", "Yes No", "\n"] * 20
CORPUS += [" \n\n\n\n", "prime.\n\nThe"] * 20
SIZES: dict[str, Any] = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=4096,
    initializer_range=0.3,
)
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,DIGITS}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_CHAT = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\n"
    "You are a model.<|im_end|>\n{% endif %}{% for m in messages %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_CHAT = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    "Today Date: 26 Jul 2024\n\n<|eot_id|>{% for m in messages %}<|start_header_id|>"
    "{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n"
    "{% endif %}"
)


def byte_level(digits: int, specials: list[str], begin: str | None = None) -> Tokenizer:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(QWEN_SPLIT.replace("DIGITS", str(digits))), "isolated"
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if begin is not None:
        raw.post_processor = processors.TemplateProcessing(
            single=f"{begin} $A", special_tokens=[(begin, raw.token_to_id(begin))]
        )
    return raw


@lru_cache
def qwen_tokenizer(template: str | None = QWEN_CHAT) -> PreTrainedTokenizerFast:
    """Qwen 2.5's kind: no begin token is added, and <extra_0> is one token."""
    controls = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra_0>"]
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level(1, controls),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        chat_template=template,
    )


@lru_cache
def skywork_tokenizer() -> PreTrainedTokenizerFast:
    """Qwen's, with a begin token that only the recipe adds."""
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level(1, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]),
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        clean_up_tokenization_spaces=False,
    )


@lru_cache
def llama_tokenizer() -> PreTrainedTokenizerFast:
    """Llama 3's kind: the tokenizer adds a begin token, and the template writes it."""
    controls = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>"]
    controls.append("<|end_header_id|>")
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level(3, controls, "<|begin_of_text|>"),
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        clean_up_tokenization_spaces=False,
        chat_template=LLAMA_CHAT,
    )


@lru_cache
def mistral_tokenizer() -> PreTrainedTokenizerFast:
    """Mistral's kind: a mark for spaces, one before every text, bytes for the rest."""
    controls = ["<unk>", "<s>", "</s>", *(f"<0x{k:02X}>" for k in range(256))]
    raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.train_from_iterator(
        [text for text in CORPUS if "\n" not in text],
        trainers.BpeTrainer(
            vocab_size=450, special_tokens=controls, show_progress=False
        ),
    )
    kept = json.loads(raw.to_str())  # the bytes are tokens like others, not controls
    kept["added_tokens"] = kept["added_tokens"][:3]
    kept["model"]["vocab"]["▁▁"] = len(kept["model"]["vocab"])  # two spaces are one
    kept["model"]["merges"].insert(0, ["▁", "▁"])
    raw = Tokenizer.from_str(json.dumps(kept))
    raw.pre_tokenizer = None  # as Llama's own files have it
    raw.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    raw.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", raw.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )


def seeded(make: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = make()
        for p in model.parameters():
            if p.dim() == 1:
                nn.init.normal_(p, 1.0 if p.std() == 0 and p.mean() == 1 else 0.0, 0.1)
    return model.eval().requires_grad_(False)


def mlp(outputs: int) -> nn.Sequential:
    width = SIZES["hidden_size"]
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))


def with_score(folder: Path, architecture: str, outputs: int) -> tuple[Any, Any]:
    """Qwen2.5-Math-PRM's layout (2 outputs) and Universal-PRM's (1): `model.` and
    `score.`, an unused `lm_head`, and remote code that nobody runs.
    """
    tokenizer = qwen_tokenizer()
    config = Qwen2Config(vocab_size=len(tokenizer), **SIZES)
    body, head = seeded(lambda: Qwen2Model(config)), seeded(lambda: mlp(outputs))
    tensors = {f"model.{name}": x for name, x in body.state_dict().items()}
    tensors |= {f"score.{name}": x for name, x in head.state_dict().items()}
    tensors["lm_head.weight"] = torch.zeros(len(tokenizer), SIZES["hidden_size"])
    save_file(
        {name: x.contiguous() for name, x in tensors.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    config.architectures = [architecture]
    config.auto_map = {"AutoModel": f"modeling_qwen2_rm.{architecture}"}
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return body, head


def with_value_head(folder: Path) -> tuple[Any, Any]:
    """Skywork's layout: `model.`, `lm_head`, and a value head of one row."""
    tokenizer = skywork_tokenizer()
    lm = seeded(
        lambda: Qwen2ForCausalLM(Qwen2Config(vocab_size=len(tokenizer), **SIZES))
    )
    head = seeded(lambda: nn.Linear(SIZES["hidden_size"], 1))
    tensors = dict(lm.state_dict())
    tensors |= {f"v_head.summary.{name}": x for name, x in head.state_dict().items()}
    lm.config.architectures = ["Qwen2ForPrmModel"]
    lm.config.save_pretrained(folder)
    save_file(
        {name: x.clone().contiguous() for name, x in tensors.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    tokenizer.save_pretrained(folder)
    return lm.model, head


def language_model(
    folder: Path, tokenizer: PreTrainedTokenizerFast, tied: bool = False
) -> Any:
    """A causal language model as save_pretrained writes it, in several files."""
    mistral = tokenizer.unk_token is not None
    kind, settings = (
        (MistralForCausalLM, MistralConfig)
        if mistral
        else (LlamaForCausalLM, LlamaConfig)
    )
    lm = seeded(
        lambda: kind(
            settings(vocab_size=len(tokenizer), tie_word_embeddings=tied, **SIZES)
        )
    )
    lm.save_pretrained(folder, max_shard_size="40KB")
    tokenizer.save_pretrained(folder)
    return lm


def token_classifier(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Any:
    """What TRL's PRMTrainer saves."""
    config = Qwen2Config(vocab_size=len(tokenizer), num_labels=2, **SIZES)
    model = seeded(lambda: Qwen2ForTokenClassification(config))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model

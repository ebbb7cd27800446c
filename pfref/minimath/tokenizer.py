"""MiniMath's tokenizer: one token a word, a digit or a sign, as a real tokenizer.json
with a chat template.
"""

import random
import re

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .problems import OPERATIONS_AT_LEVEL, draw
from .programs import evaluate, write_steps

SPECIAL = [
    "<|pad|>",
    "<|unknown|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<extra_0>",
]
PIECE = r"\n\n|\\boxed| ?[A-Za-z]+|[0-9]|[^A-Za-z0-9]"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}<|user|>{{ message.content }}"
    "{% elif message.role == 'assistant' %}"
    "<|assistant|>{{ message.content }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def vocabulary() -> list[str]:
    """Every piece that MiniMath's problems and solutions are written in, sorted."""
    rng, pieces = random.Random(0), set("0123456789")
    for _ in range(20000):
        _, text, program = draw(rng, rng.choice(list(OPERATIONS_AT_LEVEL)))
        pieces.update(
            re.findall(
                PIECE,
                text + "\n\n".join(write_steps(program, evaluate(program))) + "\n\n",
            )
        )
    return sorted(pieces)


def build() -> PreTrainedTokenizerFast:
    pieces = SPECIAL + vocabulary()
    tokenizer = Tokenizer(
        models.WordLevel(
            {piece: k for k, piece in enumerate(pieces)}, unk_token="<|unknown|>"
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECE), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        unk_token="<|unknown|>",
        eos_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>", "<extra_0>"],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )

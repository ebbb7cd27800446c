"""A Llama of transformers as a .gguf file in float32, with a vocabulary that gives
every id the text that it has here. Prompts go to the server as ids, so that its
tokenizer, which would read text otherwise, has nothing to do.
"""

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, TokenType
from torch import Tensor

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def write_gguf(model: Any, tokenizer: Any, file: Path, **advice: float) -> None:
    """`advice` is what the file recommends for sampling, such as top_k=2."""
    c = model.config
    w = GGUFWriter(file, "llama")
    w.add_vocab_size(c.vocab_size)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)
    w.add_rope_dimension_count(c.head_dim)
    w.add_rope_freq_base(c.rope_parameters["rope_theta"])
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    texts = tokenizer.convert_ids_to_tokens(list(range(c.vocab_size)))
    special = set(tokenizer.all_special_ids)
    kinds = (TokenType.NORMAL, TokenType.CONTROL)
    w.add_tokenizer_model("llama")
    w.add_token_list([text.replace(" ", "▁") for text in texts])
    w.add_token_scores([0.0] * len(texts))
    w.add_token_types([kinds[k in special] for k in range(len(texts))])
    w.add_eos_token_id(tokenizer.eos_token_id)
    w.add_add_bos_token(False)
    for name, value in advice.items():
        add = w.add_int32 if isinstance(value, int) else w.add_float32
        add(f"general.sampling.{name}", value)
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight" or not c.tie_word_embeddings:
            w.add_tensor(*converted(name, tensor, c))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def converted(name: str, tensor: Tensor, c: Any) -> tuple[str, np.ndarray]:
    """A tensor's name and values there. Rotary positions turn neighbours there, and
    halves here, so that the rows of queries and keys change places.
    """
    values = tensor.float().numpy()
    if name in TOP:
        return TOP[name], values
    _, _, layer, rest = name.split(".", 3)
    part, _, kind = rest.rpartition(".")
    heads = {"attn_q": c.num_attention_heads, "attn_k": c.num_key_value_heads}
    if n := heads.get(NAMES[part]):
        halves = values.reshape(n, 2, c.head_dim // 2, *values.shape[1:])
        values = halves.swapaxes(1, 2).reshape(values.shape)
    return f"blk.{layer}.{NAMES[part]}.{kind}", np.ascontiguousarray(values)

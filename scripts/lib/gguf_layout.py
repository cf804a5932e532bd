"""What a GGUF file of a Llama model must hold: each tensor once, with the shape that the metadata give it, in one file.

Nothing is concluded from what is missing, but one thing that GGUF defines so: a whole file without output.weight has a tied head.
"""

from gguf_metadata import UnreadableModel

TOP_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
ROPE_FACTORS = "rope_freqs.weight"  # Llama-3 scaling as one divisor per frequency; goes into config.json

READ_KEYS = {
    "context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size", "attention.head_count",
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.layer_norm_rms_epsilon",
    "rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.finetuned"}
NEUTRAL_VALUES = {"expert_count": 0, "expert_used_count": 0, "rope.scale_linear": 1.0, "rope.scaling.attn_factor": 1.0,
                  "attention.causal": True}


def hf_name(name):
    if name in TOP_NAMES or name == ROPE_FACTORS:
        return TOP_NAMES.get(name)
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[3] == "weight" and parts[2] in LAYER_NAMES:
        return f"model.layers.{parts[1]}.{LAYER_NAMES[parts[2]]}.weight"
    raise UnreadableModel(f'the tensor "{name}" has no place in a Llama model')


def check_one_file(metadata, tensors):
    """Refuses a part of a model that was split into several files."""
    count = metadata.get("split.count", 1)
    if count > 1:
        raise UnreadableModel(f"is file {metadata.get('split.no', 0) + 1} of {count} of one model; "
                              "join them first: llama-gguf-split --merge FIRST.gguf WHOLE.gguf")
    wanted = metadata.get("split.tensors.count", len(tensors))
    if wanted != len(tensors):
        raise UnreadableModel(f"holds {len(tensors)} of the model's {wanted} tensors")


def check_arithmetic(metadata):
    """Refuses keys of the architecture that are neither read nor known to change nothing."""
    for key in sorted(metadata.keys()):
        if not key.startswith("llama.") or key[len("llama."):] in READ_KEYS:
            continue
        short = key[len("llama."):]
        if short not in NEUTRAL_VALUES:
            raise UnreadableModel(f'the key "{key}" is not understood: it may change the model\'s arithmetic')
        if metadata.get(key) != NEUTRAL_VALUES[short]:
            raise UnreadableModel(f'"{key}" is {metadata.get(key)}, and only {NEUTRAL_VALUES[short]} is supported')


def rope_kind(metadata):
    """"none", or an error: what trainer computes beside it, Llama 3's scaling, stands in a tensor."""
    kind = metadata.get("llama.rope.scaling.type", "none")
    if kind == "none" or (kind == "linear" and metadata.get("llama.rope.scaling.factor", 1.0) == 1.0):
        return "none"
    raise UnreadableModel(f'the RoPE scaling "{kind}" is not supported; supported: none, and Llama 3\'s factors')


def expected_shapes(config):
    """Each tensor's name and shape, as [rows, columns]."""
    hidden, mlp, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    inside = {"attn_norm": [hidden], "attn_q": [queries, hidden], "attn_k": [keys, hidden], "attn_v": [keys, hidden],
              "attn_output": [hidden, queries], "ffn_norm": [hidden], "ffn_gate": [mlp, hidden],
              "ffn_up": [mlp, hidden], "ffn_down": [hidden, mlp]}
    shapes = {"token_embd.weight": [vocab, hidden], "output_norm.weight": [hidden]}
    if not config["tie_word_embeddings"]:
        shapes["output.weight"] = [vocab, hidden]
    for layer in range(config["num_hidden_layers"]):
        shapes.update({f"blk.{layer}.{name}.weight": shape for name, shape in inside.items()})
    return shapes


def check_tensors(tensors, config):
    """Refuses a file that lacks a tensor, has one twice or too many, or one of another shape."""
    expected, found = expected_shapes(config), set()
    for tensor in tensors:
        if tensor.name in found:
            raise UnreadableModel(f'the tensor "{tensor.name}" is there twice')
        found.add(tensor.name)
        hf_name(tensor.name)
        if tensor.name == ROPE_FACTORS:
            continue
        if tensor.name not in expected:
            raise UnreadableModel(f'the tensor "{tensor.name}" belongs to no layer: '
                                  f'llama.block_count is {config["num_hidden_layers"]}')
        shape = [int(size) for size in reversed(tensor.shape)]
        if shape != expected[tensor.name]:
            raise UnreadableModel(f'the tensor "{tensor.name}" is {shape}, expected {expected[tensor.name]}'
                                  + (f": the vocabulary has {config['vocab_size']} tokens"
                                     if tensor.name in ("token_embd.weight", "output.weight") else ""))
    missing = [name for name in expected if name not in found]
    if missing:
        more = f" and {len(missing) - 1} others" if len(missing) > 1 else ""
        raise UnreadableModel(f'the tensor "{missing[0]}"{more} is missing: the file is not whole')

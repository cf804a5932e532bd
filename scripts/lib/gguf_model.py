"""Config and weights of a GGUF file of the llama architecture, as Hugging Face names and stores them.

llama.cpp rotates neighbouring pairs of a head (0,1), (2,3), ...; Hugging Face rotates the halves (0, D/2), (1, D/2+1),
... . Its converter therefore reorders the rows of the query and key projections, and unpermute() puts them back:

    GGUF row of a head   0  1  2  3  4  5         HF row   0  1  2  3  4  5
    is the HF row        0  3  1  4  2  5   (D=6)

Tensors are dequantised and written one at a time, so that memory stays near the largest tensor.
"""

import json
import math
import struct

import gguf
import numpy as np

import gguf_layout
from gguf_layout import ROPE_FACTORS, hf_name
from gguf_metadata import UnreadableModel

DTYPES = {"f32": ("F32", "float32", 4), "bf16": ("BF16", "bfloat16", 2), "f16": ("F16", "float16", 2)}


def config(metadata, tensors, dtype):
    """The config.json of LlamaForCausalLM."""
    gguf_layout.check_one_file(metadata, tensors)
    architecture = metadata.require("general.architecture")
    if architecture != "llama":
        raise UnreadableModel(f'the architecture "{architecture}" is not supported; supported: llama')
    if metadata.get("llama.expert_count", 0):
        raise UnreadableModel("a mixture of experts (llama.expert_count > 0) is not supported")
    gguf_layout.check_arithmetic(metadata)

    names = {tensor.name for tensor in tensors}
    hidden_size = metadata.number("llama.embedding_length")
    heads = metadata.number("llama.attention.head_count")
    head_dim = metadata.number("llama.attention.key_length", hidden_size // heads)
    check_head_dims(metadata, head_dim)
    result = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden_size,
        "intermediate_size": metadata.number("llama.feed_forward_length"),
        "num_hidden_layers": metadata.number("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.number("llama.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rms_norm_eps": shortest_float(metadata.number("llama.attention.layer_norm_rms_epsilon")),
        "rope_theta": shortest_float(metadata.get("llama.rope.freq_base", 10000.0)),
        "rope_scaling": rope_scaling(metadata, tensors, head_dim),
        "max_position_embeddings": metadata.number("llama.context_length"),
        "vocab_size": len(metadata.require("tokenizer.ggml.tokens")),
        "tie_word_embeddings": "output.weight" not in names,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
        "torch_dtype": DTYPES[dtype][1],
    }
    gguf_layout.check_tensors(tensors, result)
    return {key: value for key, value in result.items() if value is not None}


def check_head_dims(metadata, head_dim):
    for key in ("llama.rope.dimension_count", "llama.attention.value_length"):
        if metadata.get(key, head_dim) != head_dim:
            raise UnreadableModel(f'"{key}" is {metadata.get(key)}, and only the head dimension {head_dim} is supported')


def shortest_float(value):
    """The shortest decimal that is this f32: GGUF's 9.999999747378752e-06 is 1e-05."""
    return float(str(np.float32(value)))


def rope_scaling(metadata, tensors, head_dim):
    gguf_layout.rope_kind(metadata)
    factors = [tensor for tensor in tensors if tensor.name == ROPE_FACTORS]
    if factors:
        return llama3_scaling(dequantise(factors[0]), metadata, head_dim)
    return None


def llama3_scaling(factors, metadata, head_dim):
    """The llama3 parameters behind the divisors that the file holds: found by trying the published ones."""
    theta = metadata.get("llama.rope.freq_base", 10000.0)
    for factor in (float(round(factors.max(), 4)), 8.0, 32.0):
        scaling = {"rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                   "original_max_position_embeddings": 8192}
        if np.allclose(llama3_divisors(scaling, theta, head_dim), factors, rtol=1e-4):
            return scaling
    raise UnreadableModel(f'"{ROPE_FACTORS}" does not follow Llama 3\'s scaling with the parameters of Llama 3.1 or 3.2')


def llama3_divisors(scaling, theta, head_dim):
    """Each frequency's divisor: 1 for short waves, `factor` for long ones, and a smooth passage between."""
    low, high, factor = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["factor"]
    wavelengths = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    rotations = scaling["original_max_position_embeddings"] / wavelengths
    smooth = np.clip((rotations - low) / (high - low), 0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


def write_weights(tensors, config, dtype, path):
    """Writes a safetensors file: a length, a JSON header, then the raw tensors. Returns the number of weight bytes."""
    stored, _, width = DTYPES[dtype]
    tensors = [tensor for tensor in tensors if tensor.name != ROPE_FACTORS]
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for tensor in tensors:
        end = offset + width * int(tensor.n_elements)
        shape = [int(size) for size in reversed(tensor.shape)]
        header[hf_name(tensor.name)] = {"dtype": stored, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)

    unfinished = path.with_suffix(".unfinished")
    with open(unfinished, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            file.write(encode(tensor.name, weight(tensor, config), dtype).tobytes())
    unfinished.replace(path)
    return offset


def weight(tensor, config):
    values = dequantise(tensor)
    if tensor.name.endswith("attn_q.weight"):
        return unpermute(values, config["num_attention_heads"])
    if tensor.name.endswith("attn_k.weight"):
        return unpermute(values, config["num_key_value_heads"])
    return values


def dequantise(tensor):
    try:
        return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    except NotImplementedError:
        raise UnreadableModel(f'the tensor "{tensor.name}" has the type {tensor.tensor_type.name}, '
                           "which the gguf package cannot dequantise") from None


def unpermute(values, heads):
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def encode(name, values, dtype):
    if not np.isfinite(values).all():
        raise UnreadableModel(f'the tensor "{name}" holds numbers that are not finite')
    if dtype == "f32":
        return values
    if dtype == "f16":
        if np.abs(values).max() > np.finfo(np.float16).max:
            raise UnreadableModel(f'a weight of "{name}" is too large for f16; use --dtype f32 or bf16')
        return values.astype(np.float16)
    bits = values.view(np.uint32)  # bf16 is the upper half of f32, rounded to nearest even
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)

"""Writes a Llama model of a Hugging Face folder as GGUF with f16 matrices and no vocabulary: for a benchmark of llama.cpp.

    write_gguf.py FOLDER FILE
"""

import json
import sys
from pathlib import Path

import gguf
import numpy
from safetensors.torch import load_file

from gguf_layout import LAYER_NAMES, TOP_NAMES


def interleaved(weight, heads):
    """Rows of a query or key matrix as llama.cpp rotates them: neighbours, where Hugging Face rotates halves."""
    rows, cols = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, cols).swapaxes(1, 2).reshape(rows, cols)


def write_metadata(writer, config):
    heads = config["num_attention_heads"]
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    rope = config.get("rope_parameters") or {}
    writer.add_rope_freq_base(float(config.get("rope_theta") or rope["rope_theta"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_tokenizer_model("no_vocab")


def names(config):
    """(name in GGUF, name in the folder, query or key heads of those that are rotated)"""
    of = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    found = [(name, hf, None) for name, hf in TOP_NAMES.items()]
    for layer in range(config["num_hidden_layers"]):
        found += [(f"blk.{layer}.{name}.weight", f"model.layers.{layer}.{hf}.weight", of.get(name))
                  for name, hf in LAYER_NAMES.items()]
    return found


def main():
    folder, file = Path(sys.argv[1]), Path(sys.argv[2])
    config = json.loads((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    writer = gguf.GGUFWriter(str(file), "llama")
    write_metadata(writer, config)
    for name, hf, heads in names(config):
        if hf not in weights:  # a tied head is not stored
            continue
        values = weights[hf].float().numpy()
        values = interleaved(values, heads) if heads else values
        writer.add_tensor(name, values if values.ndim == 1 else values.astype(numpy.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main()

#pragma once
// The weights of decoders whose block is Llama's: norm, grouped-query attention, norm, SwiGLU. What a family has beyond
// that is an option here.

#include "model/families/spec_list.h"

namespace tessera {

struct LlamaBlock {
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  bool head_norms = false;  // of q and k, over head_dim, before RoPE
};

/// All weights, under Hugging Face's names.
std::vector<WeightSpec> llama_specs(const ModelConfig&, const LlamaBlock&);

}  // namespace tessera

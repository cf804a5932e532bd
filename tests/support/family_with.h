#pragma once
// Families that the program does not have: a Llama whose q, k and v have biases, or whose q and k are normed before
// RoPE. A family's file holds no more than this.

#include "model/families/decoder_config.h"
#include "model/families/spec_list.h"

namespace tessera::test {

/// What is normed by itself: nothing, each head (as Qwen3 does), all heads of a token together (as OLMo 2 does).
enum class QkNorms { none, heads, width };

template <bool kBiases, QkNorms kNorms> std::vector<WeightSpec> specs_with(const ModelConfig& c) {
  SpecList list(c);
  const auto projection = [&](int layer, const std::string& type, Part weight, Part bias, int64_t width) {
    list.linear(layer, type, weight, {width, c.hidden_size});
    if (kBiases) list.bias(layer, type, bias, width);
  };
  const auto norm = [&](int layer, const std::string& type, Part part, int64_t width) {
    if (kNorms != QkNorms::none) list.norm(layer, type, part, kNorms == QkNorms::heads ? c.head_dim : width);
  };
  list.embedding("model.embed_tokens.weight");
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
    list.norm(layer, "input_layernorm", Part::input_norm);
    projection(layer, "self_attn.q_proj", Part::q, Part::q_bias, c.query_width());
    projection(layer, "self_attn.k_proj", Part::k, Part::k_bias, c.key_width());
    projection(layer, "self_attn.v_proj", Part::v, Part::v_bias, c.key_width());
    list.linear(layer, "self_attn.o_proj", Part::o, {c.hidden_size, c.query_width()});
    norm(layer, "self_attn.q_norm", Part::q_norm, c.query_width());
    norm(layer, "self_attn.k_norm", Part::k_norm, c.key_width());
    list.norm(layer, "post_attention_layernorm", Part::mlp_norm);
    list.linear(layer, "mlp.gate_proj", Part::gate, {c.intermediate_size, c.hidden_size});
    list.linear(layer, "mlp.up_proj", Part::up, {c.intermediate_size, c.hidden_size});
    list.linear(layer, "mlp.down_proj", Part::down, {c.hidden_size, c.intermediate_size});
  }
  list.final_norm("model.norm.weight");
  list.head("lm_head.weight");
  return list.take();
}

inline ModelFamily family_with(bool biases, QkNorms norms) {
  const auto read = [](const Json& json, const std::string& where) {
    ModelConfig config = read_decoder_config(json, where, {});
    config.family = "with biases or norms";
    return config;
  };
  const auto specs = biases                    ? norms == QkNorms::heads   ? specs_with<true, QkNorms::heads>
                                                 : norms == QkNorms::width ? specs_with<true, QkNorms::width>
                                                                           : specs_with<true, QkNorms::none>
                                        : norms == QkNorms::heads ? specs_with<false, QkNorms::heads>
                     : norms == QkNorms::width ? specs_with<false, QkNorms::width>
                                               : specs_with<false, QkNorms::none>;
  return {"with biases or norms", "for tests", read, specs};
}

}  // namespace tessera::test

#pragma once
// A family that the program does not have: a Llama whose q, k and v have biases. A family's file holds no more than
// this.

#include "model/families/decoder_config.h"
#include "model/families/spec_list.h"

namespace tessera::test {

inline ModelFamily biased_family() {
  const auto read = [](const Json& json, const std::string& where) {
    ModelConfig config = read_decoder_config(json, where);
    config.family = "biased";
    return config;
  };
  const auto specs = [](const ModelConfig& c) {
    SpecList list(c);
    list.embedding("model.embed_tokens.weight");
    for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
      list.norm(layer, "input_layernorm", Part::input_norm);
      list.linear(layer, "self_attn.q_proj", Part::q, {c.query_width(), c.hidden_size});
      list.bias(layer, "self_attn.q_proj", Part::q_bias, c.query_width());
      list.linear(layer, "self_attn.k_proj", Part::k, {c.key_width(), c.hidden_size});
      list.bias(layer, "self_attn.k_proj", Part::k_bias, c.key_width());
      list.linear(layer, "self_attn.v_proj", Part::v, {c.key_width(), c.hidden_size});
      list.bias(layer, "self_attn.v_proj", Part::v_bias, c.key_width());
      list.linear(layer, "self_attn.o_proj", Part::o, {c.hidden_size, c.query_width()});
      list.norm(layer, "post_attention_layernorm", Part::mlp_norm);
      list.linear(layer, "mlp.gate_proj", Part::gate, {c.intermediate_size, c.hidden_size});
      list.linear(layer, "mlp.up_proj", Part::up, {c.intermediate_size, c.hidden_size});
      list.linear(layer, "mlp.down_proj", Part::down, {c.hidden_size, c.intermediate_size});
    }
    list.final_norm("model.norm.weight");
    list.head("lm_head.weight");
    return list.take();
  };
  return {"biased", "for tests", read, specs};
}

}  // namespace tessera::test

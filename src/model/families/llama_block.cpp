#include "model/families/llama_block.h"

namespace tessera {
namespace {

void add_linear(SpecList& list, int layer, const std::string& type, Part part, Shape shape, bool has_bias, Part bias) {
  list.linear(layer, type, part, shape);
  if (has_bias) list.bias(layer, type, bias, shape[0]);
}

}  // namespace

// The order is the numbering of the weights, by which dropout is keyed and fingerprints are formed: never another.
std::vector<WeightSpec> llama_specs(const ModelConfig& c, const LlamaBlock& has) {
  const Shape query{c.query_width(), c.hidden_size}, key{c.key_width(), c.hidden_size},
      wide{c.intermediate_size, c.hidden_size};
  SpecList list(c);
  list.embedding("model.embed_tokens.weight");
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
    list.norm(layer, "input_layernorm", Part::input_norm);
    add_linear(list, layer, "self_attn.q_proj", Part::q, query, has.qkv_bias, Part::q_bias);
    add_linear(list, layer, "self_attn.k_proj", Part::k, key, has.qkv_bias, Part::k_bias);
    add_linear(list, layer, "self_attn.v_proj", Part::v, key, has.qkv_bias, Part::v_bias);
    add_linear(list, layer, "self_attn.o_proj", Part::o, {c.hidden_size, c.query_width()}, has.o_bias, Part::o_bias);
    if (has.head_norms) {
      list.norm(layer, "self_attn.q_norm", Part::q_norm, c.head_dim);
      list.norm(layer, "self_attn.k_norm", Part::k_norm, c.head_dim);
    }
    list.norm(layer, "post_attention_layernorm", Part::mlp_norm);
    add_linear(list, layer, "mlp.gate_proj", Part::gate, wide, has.mlp_bias, Part::gate_bias);
    add_linear(list, layer, "mlp.up_proj", Part::up, wide, has.mlp_bias, Part::up_bias);
    add_linear(list, layer, "mlp.down_proj", Part::down, {c.hidden_size, c.intermediate_size}, has.mlp_bias,
               Part::down_bias);
  }
  list.final_norm("model.norm.weight");
  list.head("lm_head.weight");
  return list.take();
}

}  // namespace tessera

// Llama: RMSNorm, rotary positions (with Llama-3's scaling), grouped-query attention, SwiGLU, tied or untied head.

#include "core/error.h"
#include "model/families/config_keys.h"
#include "model/families/decoder_config.h"
#include "model/families/spec_list.h"

namespace tessera {
namespace {

/// Keys that change the maths: present with another value than the one we compute is an error that names them.
void refuse_other_maths(const Json& json, const std::string& where) {
  struct Expected {
    std::string_view key, value;
  };
  constexpr Expected kOnly[] = {{"hidden_act", "\"silu\""}, {"attention_bias", "false"}, {"mlp_bias", "false"}};
  for (const auto& [key, value] : kOnly)
    if (const Json* found = json.find(key); found && found->dump() != value)
      unsupported(key, *found, std::string(value), where);
  for (const std::string_view key :
       {"sliding_window", "attn_logit_softcapping", "final_logit_softcapping", "num_experts", "num_local_experts",
        "quantization_config", "partial_rotary_factor", "qk_norm", "embedding_multiplier", "logits_scaling",
        "residual_multiplier", "attention_multiplier"}) {
    const Json* found = json.find(key);
    const bool neutral = !found || (found->is_number() && found->as_number() == 1.0 && key != "sliding_window");
    if (!neutral) unsupported(key, *found, "leave it out", where);
  }
  if (const Json* tp = json.find("pretraining_tp"); tp && tp->is_integer() && tp->as_integer() > 1)
    unsupported("pretraining_tp", *tp, "1", where);
}

ModelConfig read(const Json& json, const std::string& where) {
  refuse_other_maths(json, where);
  ModelConfig config = read_decoder_config(json, where);
  config.family = "llama";
  return config;
}

// The order is the numbering of the weights, by which dropout is keyed and fingerprints are formed: never another.
std::vector<WeightSpec> specs(const ModelConfig& c) {
  SpecList list(c);
  list.embedding("model.embed_tokens.weight");
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
    list.norm(layer, "input_layernorm", Part::input_norm);
    list.linear(layer, "self_attn.q_proj", Part::q, {c.query_width(), c.hidden_size});
    list.linear(layer, "self_attn.k_proj", Part::k, {c.key_width(), c.hidden_size});
    list.linear(layer, "self_attn.v_proj", Part::v, {c.key_width(), c.hidden_size});
    list.linear(layer, "self_attn.o_proj", Part::o, {c.hidden_size, c.query_width()});
    list.norm(layer, "post_attention_layernorm", Part::mlp_norm);
    list.linear(layer, "mlp.gate_proj", Part::gate, {c.intermediate_size, c.hidden_size});
    list.linear(layer, "mlp.up_proj", Part::up, {c.intermediate_size, c.hidden_size});
    list.linear(layer, "mlp.down_proj", Part::down, {c.hidden_size, c.intermediate_size});
  }
  list.final_norm("model.norm.weight");
  list.head("lm_head.weight");
  return list.take();
}

}  // namespace

ModelFamily llama_family() { return {"llama", "Llama 1-3, SmolLM, TinyLlama and alike", read, specs}; }

}  // namespace tessera

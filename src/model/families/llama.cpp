// Llama: RMSNorm, rotary positions (with Llama-3's scaling), grouped-query attention, SwiGLU, tied or untied head.

#include <algorithm>
#include <limits>

#include "core/error.h"
#include "model/families/families.h"

namespace tessera {
namespace {

constexpr int64_t kMostLayers = 10'000;
constexpr double kMostParameters = 1e13;  // sizes below it cannot overflow

int64_t positive(const Json& json, std::string_view key, const std::string& where, int64_t most = int64_t{1} << 31) {
  const Json* value = json.find(key);
  if (!value) throw UserError(where, fmt::format("the key \"{}\" is missing", key));
  if (!value->is_integer() || value->as_integer() <= 0 || value->as_integer() > most)
    throw UserError(where, fmt::format("\"{}\" is {}, expected a whole number, 1 to {}", key, value->dump(), most));
  return value->as_integer();
}

int64_t positive_or(const Json& json, std::string_view key, int64_t otherwise, const std::string& where) {
  return json.find(key) ? positive(json, key, where) : otherwise;
}

double above_zero_or(const Json& json, std::string_view key, double otherwise, const std::string& where) {
  const Json* value = json.find(key);
  if (!value) return otherwise;
  if (!value->is_number() || !(value->as_number() > 0))
    throw UserError(where, fmt::format("\"{}\" is {}, expected a number above 0", key, value->dump()));
  constexpr double kLeast = std::numeric_limits<float>::min(), kMost = std::numeric_limits<float>::max();
  if (value->as_number() < kLeast || value->as_number() > kMost)  // it is computed with in f32
    throw UserError(where, fmt::format("\"{}\" is {}, expected {:.3g} to {:.3g}", key, value->dump(), kLeast, kMost));
  return value->as_number();
}

[[noreturn]] void unsupported(std::string_view key, const Json& value, const std::string& supported,
                              const std::string& where) {
  throw UserError(
      where, fmt::format("\"{}\" is {}: this changes the model's arithmetic and is not supported", key, value.dump()),
      "supported: " + supported);
}

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

RopeConfig read_rope(const Json& json, const std::string& where) {
  RopeConfig rope;
  rope.theta = above_zero_or(json, "rope_theta", 10000, where);
  const Json* scaling = json.find("rope_scaling");
  if (const Json* parameters = json.find("rope_parameters")) {  // transformers 5 writes theta and scaling together
    scaling = parameters;
    rope.theta = above_zero_or(*parameters, "rope_theta", rope.theta, where);
  }
  if (!scaling) return rope;
  const Json* type = scaling->find("rope_type");
  if (!type) type = scaling->find("type");
  if (!type) unsupported("rope_scaling", *scaling, "null, or rope_type \"llama3\"", where);
  if (type->as_string() == "default") return rope;
  if (type->as_string() != "llama3") unsupported("rope_scaling", *scaling, "null, or rope_type \"llama3\"", where);
  rope.factor = above_zero_or(*scaling, "factor", 8, where);
  rope.low_freq_factor = above_zero_or(*scaling, "low_freq_factor", 1, where);
  rope.high_freq_factor = above_zero_or(*scaling, "high_freq_factor", 4, where);
  rope.original_max_position_embeddings = positive_or(*scaling, "original_max_position_embeddings", 8192, where);
  if (rope.factor <= 0 || rope.high_freq_factor <= rope.low_freq_factor)
    throw UserError(where, "\"rope_scaling\" needs factor > 0 and high_freq_factor > low_freq_factor");
  return rope;
}

DType read_dtype(const Json& json) {
  const Json* name = json.find("torch_dtype");
  if (!name) name = json.find("dtype");  // transformers 5
  if (!name || !name->is_string()) return DType::f32;
  if (name->as_string() == "bfloat16") return DType::bf16;
  return name->as_string() == "float16" ? DType::f16 : DType::f32;
}

void refuse_huge(const ModelConfig& c, const std::string& where) {
  const auto heads = static_cast<double>(2 * (c.num_attention_heads + c.num_key_value_heads));
  const double layer = heads * static_cast<double>(c.head_dim) + 3 * static_cast<double>(c.intermediate_size);
  const double rows = 2 * static_cast<double>(c.vocab_size) + static_cast<double>(c.num_hidden_layers) * layer;
  if (const double parameters = rows * static_cast<double>(c.hidden_size); parameters > kMostParameters)
    throw UserError(where, fmt::format("these sizes make a model of about {:.0e} parameters", parameters),
                    "look for a number with too many digits");
}

ModelConfig read(const Json& json, const std::string& where) {
  refuse_other_maths(json, where);
  ModelConfig c;
  c.family = "llama";
  c.source = json;
  c.vocab_size = positive(json, "vocab_size", where);
  c.hidden_size = positive(json, "hidden_size", where);
  c.intermediate_size = positive(json, "intermediate_size", where);
  c.num_hidden_layers = positive(json, "num_hidden_layers", where, kMostLayers);
  c.num_attention_heads = positive(json, "num_attention_heads", where);
  c.num_key_value_heads = positive_or(json, "num_key_value_heads", c.num_attention_heads, where);
  if (!json.find("head_dim") && c.hidden_size % c.num_attention_heads != 0)
    throw UserError(
        where,
        fmt::format("hidden_size={} is not a multiple of num_attention_heads={}", c.hidden_size, c.num_attention_heads),
        "give \"head_dim\"");
  c.head_dim = positive_or(json, "head_dim", c.hidden_size / c.num_attention_heads, where);
  if (c.num_attention_heads % c.num_key_value_heads != 0)
    throw UserError(where, fmt::format("num_attention_heads={} is not a multiple of num_key_value_heads={}",
                                       c.num_attention_heads, c.num_key_value_heads));
  if (c.head_dim % 2 != 0)
    throw UserError(where, fmt::format("head_dim={} is odd: rotary positions turn pairs", c.head_dim));
  refuse_huge(c, where);
  c.max_position_embeddings = positive_or(json, "max_position_embeddings", 2048, where);
  c.rms_norm_eps = above_zero_or(json, "rms_norm_eps", 1e-6, where);
  c.initializer_range = above_zero_or(json, "initializer_range", 0.02, where);
  c.rope = read_rope(json, where);
  const Json* tied = json.find("tie_word_embeddings");
  c.tie_word_embeddings = tied && tied->as_bool();
  c.dtype = read_dtype(json);
  return c;
}

// The order is the numbering of the weights, by which dropout is keyed and fingerprints are formed: never another.
std::vector<WeightSpec> specs(const ModelConfig& c) {
  std::vector<WeightSpec> list;
  const Init draw{Init::Kind::normal, c.initializer_range, {}}, ones{Init::Kind::ones, 0, {}};
  const auto outside = [&](const std::string& name, Role role, Part part, Shape shape, const Init& init) {
    list.push_back({.name = name,
                    .type = "",
                    .layer = -1,
                    .role = role,
                    .part = part,
                    .shape = shape,
                    .init = init,
                    .storage = name});
  };
  const auto inside = [&](int layer, const std::string& type, Role role, Part part, Shape shape, const Init& init) {
    const std::string name = fmt::format("model.layers.{}.{}.weight", layer, type);
    list.push_back({.name = name,
                    .type = type,
                    .layer = layer,
                    .role = role,
                    .part = part,
                    .shape = shape,
                    .init = init,
                    .storage = name});
  };
  outside("model.embed_tokens.weight", Role::embedding, Part::embedding, {c.vocab_size, c.hidden_size}, draw);
  for (int layer = 0; layer < c.num_hidden_layers; ++layer) {
    inside(layer, "input_layernorm", Role::norm, Part::input_norm, {c.hidden_size}, ones);
    inside(layer, "self_attn.q_proj", Role::linear, Part::q, {c.query_width(), c.hidden_size}, draw);
    inside(layer, "self_attn.k_proj", Role::linear, Part::k, {c.key_width(), c.hidden_size}, draw);
    inside(layer, "self_attn.v_proj", Role::linear, Part::v, {c.key_width(), c.hidden_size}, draw);
    inside(layer, "self_attn.o_proj", Role::linear, Part::o, {c.hidden_size, c.query_width()}, draw);
    inside(layer, "post_attention_layernorm", Role::norm, Part::mlp_norm, {c.hidden_size}, ones);
    inside(layer, "mlp.gate_proj", Role::linear, Part::gate, {c.intermediate_size, c.hidden_size}, draw);
    inside(layer, "mlp.up_proj", Role::linear, Part::up, {c.intermediate_size, c.hidden_size}, draw);
    inside(layer, "mlp.down_proj", Role::linear, Part::down, {c.hidden_size, c.intermediate_size}, draw);
  }
  outside("model.norm.weight", Role::norm, Part::final_norm, {c.hidden_size}, ones);
  outside("lm_head.weight", Role::head, Part::head, {c.vocab_size, c.hidden_size}, draw);
  // A tied head stays a weight of its own with a number of its own; only what it is read from is the embedding's.
  if (c.tie_word_embeddings) list.back().storage = list.front().name;
  return list;
}

}  // namespace

ModelFamily llama_family() { return {"llama", "Llama 1-3, SmolLM, TinyLlama and alike", read, specs}; }

}  // namespace tessera

#include "model/families/decoder_config.h"

#include "core/error.h"
#include "model/families/config_keys.h"
#include "model/families/rope_config.h"

namespace tessera {
namespace {

constexpr int64_t kMostLayers = 10'000;
constexpr double kMostParameters = 1e13;  // sizes below it cannot overflow

DType read_dtype(const Json& json) {
  const Json* name = json.find("torch_dtype");
  if (!name) name = json.find("dtype");
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

}  // namespace

ModelConfig read_decoder_config(const Json& json, const std::string& where, const DecoderDefaults& defaults) {
  require_value(json, "hidden_act", Json("silu"), where);
  ModelConfig c;
  c.source = json;
  c.vocab_size = positive(json, "vocab_size", where);
  c.hidden_size = positive(json, "hidden_size", where);
  c.intermediate_size = positive(json, "intermediate_size", where);
  c.num_hidden_layers = positive(json, "num_hidden_layers", where, kMostLayers);
  c.num_attention_heads = positive(json, "num_attention_heads", where);
  const bool has_kv_heads = json.find("num_key_value_heads");
  const int64_t kv_heads =
      is_null(json, "num_key_value_heads") ? c.num_attention_heads : defaults.kv_heads.value_or(c.num_attention_heads);
  c.num_key_value_heads = positive_or(json, "num_key_value_heads", kv_heads, where);
  if (!json.find("head_dim") && !defaults.head_dim && c.hidden_size % c.num_attention_heads != 0)
    throw UserError(
        where,
        fmt::format("hidden_size={} is not a multiple of num_attention_heads={}", c.hidden_size, c.num_attention_heads),
        "give \"head_dim\"");
  c.head_dim = positive_or(json, "head_dim", defaults.head_dim.value_or(c.hidden_size / c.num_attention_heads), where);
  if (c.num_attention_heads % c.num_key_value_heads != 0)
    throw UserError(
        where,
        fmt::format("num_attention_heads={} is not a multiple of num_key_value_heads={}{}", c.num_attention_heads,
                    c.num_key_value_heads, has_kv_heads ? "" : ", which is the family's default"),
        has_kv_heads ? "" : "give \"num_key_value_heads\"");
  if (c.head_dim % 2 != 0)
    throw UserError(where, fmt::format("head_dim={} is odd: rotary positions turn pairs", c.head_dim));
  refuse_huge(c, where);
  c.max_position_embeddings = positive_or(json, "max_position_embeddings", defaults.max_position, where);
  c.rms_norm_eps = above_zero_or(json, "rms_norm_eps", 1e-6, where);
  c.initializer_range = above_zero_or(json, "initializer_range", 0.02, where);
  c.rope = read_rope(json, defaults.rope_theta, c.max_position_embeddings, where);
  c.tie_word_embeddings = flag_or(json, "tie_word_embeddings", defaults.tied, where);
  c.dtype = read_dtype(json);
  return c;
}

}  // namespace tessera

#pragma once
// Small models drawn at random, a context to run them in, and ways to look inside.

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/json.h"
#include "model/model.h"
#include "model/packed_attention.h"
#include "support/paths.h"

namespace tessera::test {

/// A Llama whose weights are large enough that no softmax is flat.
struct TinyConfig {
  int64_t vocab_size = 23, hidden_size = 16, intermediate_size = 20, layers = 3, heads = 4, kv_heads = 2, head_dim = 4;
  bool tied = false;
  double initializer_range = 0.3;
  std::string dtype = "float32";
  bool biases = false;  // of all linears
};

inline Json to_json(const TinyConfig& c) {
  Json json = Json::object();
  if (c.biases) json.set("attention_bias", true).set("mlp_bias", true);
  return json.set("model_type", "llama")
      .set("vocab_size", c.vocab_size)
      .set("hidden_size", c.hidden_size)
      .set("intermediate_size", c.intermediate_size)
      .set("num_hidden_layers", c.layers)
      .set("num_attention_heads", c.heads)
      .set("num_key_value_heads", c.kv_heads)
      .set("head_dim", c.head_dim)
      .set("rms_norm_eps", 1e-5)
      .set("initializer_range", c.initializer_range)
      .set("tie_word_embeddings", c.tied)
      .set("torch_dtype", c.dtype);
}

/// Settings of a drawn model; its config.json is written into `folder`.
inline Model::Settings tiny_settings(const std::filesystem::path& folder, const TinyConfig& config = {}) {
  write_file(folder / "config.json", to_json(config).dump(2));
  Model::Settings settings;
  settings.model.path = folder;
  settings.model.init = "random";
  settings.max_position = 64;
  settings.seed = 11;
  return settings;
}

/// A context with its own scratch.
struct OwnContext {
  explicit OwnContext(const std::string& backend = "cpu")
      : ctx{.device = {}, .stream = {}, .kernels = kernels_for({}, backend), .scratch = arena, .threads = 2} {}
  Arena arena{16 << 20};
  Context ctx;
};

/// Logits [tokens, vocab] of one document.
inline Tensor logits_of(const Context& ctx, Model& model, const std::vector<int32_t>& ids) {
  const auto scope = ctx.scratch.scope();
  const auto tokens = static_cast<int64_t>(ids.size());
  std::vector<int32_t> positions(ids.size());
  for (int32_t i = 0; i < tokens; ++i) positions[i] = i;
  const std::vector<int64_t> draws(positions.begin(), positions.end());
  const AttentionSegment segment{0, tokens, 0, tokens};
  const RowGroup group{0, tokens, model.bound_adapter()};
  const TokenBatch batch{ids, positions, draws, {&segment, 1}, {&group, 1}};
  const Pass pass{ctx, batch, {&model.pool()}};
  PackedAttention attention;
  DecoderModel& decoder = model.decoder();
  const TensorView hidden = decoder.forward(pass, attention);
  Tensor logits({tokens, model.config().vocab_size}, decoder.activations());
  decoder.logits(pass, hidden, positions, logits);
  return logits;
}

/// Values or gradients of the trainable slot of that name.
inline TensorView slot_of(ParameterPool& pool, const std::string& name, bool gradient = false) {
  FlatParams& flat = pool.trainable();
  for (const TrainableSlot& slot : flat.slots)
    if (slot.name == name)
      return (gradient ? flat.grads : flat.values)
          .slice_rows(slot.begin, slot.begin + slot.shape.count())
          .reshape(slot.shape);
  TS_CHECK(false, "no slot \"{}\"", name);
  return {};
}

/// Small integers, so that sums are exact.
inline void fill_integers(TensorView view, uint32_t seed, int bound = 4) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> draw(-bound, bound);
  for (float& x : view.as<float>()) x = static_cast<float>(draw(random));
}

/// Normal draws of the given deviation, f32 or f64.
inline void fill_normal(TensorView view, uint32_t seed, double deviation) {
  std::mt19937 random(seed);
  std::normal_distribution<double> draw(0, deviation);
  if (view.dtype == DType::f64)
    for (double& x : view.as<double>()) x = draw(random);
  else
    for (float& x : view.as<float>()) x = static_cast<float>(draw(random));
}

/// Gives every trainable slot other values; the caller assembles.
inline void fill_all_normal(ParameterPool& pool, uint32_t seed, double deviation) {
  for (const TrainableSlot& slot : pool.trainable().slots) fill_normal(slot_of(pool, slot.name), seed++, deviation);
}

inline bool same_bytes(const ConstView& a, const ConstView& b) {
  return a.dtype == b.dtype && a.shape == b.shape && std::memcmp(a.data, b.data, static_cast<size_t>(a.bytes())) == 0;
}

}  // namespace tessera::test

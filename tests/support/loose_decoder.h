#pragma once
// A decoder without a Model around it: specs, gains, gates and groups of rows are the test's. Its loss is <hidden, r>
// of the blocks' output with fixed r, so that gradients need no head.

#include <gtest/gtest.h>

#include <functional>

#include "core/device/memory.h"
#include "core/random.h"
#include "kernels/compute.h"
#include "kernels/elementwise.h"
#include "kernels/host_work.h"
#include "kernels/upload.h"
#include "model/packed_attention.h"
#include "model/sharing/base.h"
#include "support/family_with.h"
#include "support/tiny_model.h"

namespace tessera::test {

enum class Trained { nothing, everything, gains };
enum class Half { attention, mlp };
/// Puts another view in the place of one, which belongs to the weight of that number.
using Wrap = std::function<ViewPtr(ViewPtr, const ParameterPool&, int weight)>;

struct LooseOptions {
  DType compute = DType::f32;  // of pool and activations
  Trained trained = Trained::everything;
  bool gains = false, biases = false, adapter = false;
  TinyConfig size = {.layers = 3};
  QkNorms norms = QkNorms::none;
  std::vector<std::pair<int, Half>> missing{};  // halves of layers
  Wrap wrap{};                                  // of every view: weights, gains and deltas
};

class LooseDecoder {
 public:
  explicit LooseDecoder(const LooseOptions& options) : pool(options.compute) {
    const bool is_llama = !options.biases && options.norms == QkNorms::none;
    const ModelFamily family = is_llama ? model_family("llama", "") : family_with(options.biases, options.norms);
    const ModelConfig config = family.read(to_json(options.size), "config.json");
    auto specs = family.specs(config);
    for (const auto& missing : options.missing)
      std::erase_if(specs, [&](const WeightSpec& spec) { return missing == std::pair(spec.layer, half_of(spec)); });
    const auto sharing = make_sharing({}, "");
    auto weights = sharing->bind(specs, pool, {.trainable = options.trained == Trained::everything});
    for (size_t i = 0; options.gains && i < specs.size(); ++i) {
      if (specs[i].role != Role::linear) continue;
      const Shape shape{specs[i].shape[0]};
      const SlotId slot = pool.reserve(
          specs[i].name + ".gain",
          {.shape = shape, .trainable = options.trained != Trained::nothing, .init = {Init::Kind::ones, 0, {}}});
      weights[i].gain = std::make_shared<SliceView>(pool, slot, shape);
    }
    AdapterWeights deltas;
    if (options.adapter) {
      AdapterConfig lora;
      lora.method = "lora";
      lora.rank = 3;
      adapter_ = make_adapter(lora, "");
      deltas = adapter_->attach(specs, pool);
    }
    pool.allocate(5);
    if (options.wrap) wrap(options.wrap, weights, deltas);
    decoder = std::make_unique<DecoderModel>(config, specs, std::move(weights), 16, options.compute);
    for (const TrainableSlot& slot : pool.trainable().slots) {
      const bool around_one = slot.name.ends_with(".gain") || slot.name.find("norm") != std::string::npos;
      if (slot.shape.rank == 1 || slot.name.ends_with(".bt"))
        fill(slot_of(pool, slot.name), static_cast<uint32_t>(fnv1a(slot.name.data(), slot.name.size())), 0.3,
             around_one ? 1 : 0);
    }
    if (options.adapter) adapter = std::make_unique<BoundAdapter>(std::move(deltas), pool);
  }

  /// Two documents and a row of padding, `copies` times.
  int64_t tokens(int64_t copies = 1) const { return copies * kTokens; }

  /// The blocks' output, on a copy of the host. @param groups  their ends cover all rows
  Tensor hidden(const Context& ctx, std::span<const RowGroup> groups, const PoolRead* read = nullptr) {
    Tensor result({groups.back().end, decoder->config().hidden_size}, decoder->activations());
    run(ctx, groups, read, [&](const Pass& pass, AttentionContext& attention) {
      convert(ctx, decoder->forward(pass, attention), result);
    });
    return result;
  }

  /// The loss; gradients are added to the pool and, when given, to the gates'.
  double train(const Context& ctx, std::span<const RowGroup> groups, Keep keep, TensorView gate_grads = {}) {
    double loss = 0;
    run(ctx, groups, nullptr, [&](Pass pass, TrainableAttention& attention) {
      pass.pool = &pool;
      pass.gate_grads = gate_grads;
      std::vector<BlockSaved> saved(static_cast<size_t>(decoder->num_layers()));
      const TensorView hidden = decoder->embed(pass);
      decoder->blocks(pass, decoder->all_layers(), attention, hidden, keep, saved);
      const TensorView dhidden = pass.rows(hidden.cols(), decoder->activations());
      host_work(ctx, [&] {
        fill(dhidden, 77, 1, 0);
        loss = dot(hidden, dhidden);
      });
      decoder->blocks_backward(pass, decoder->all_layers(), attention, keep, saved, dhidden);
      decoder->embed_backward(pass, dhidden);
    });
    if (adapter) adapter->finish_backward(ctx);
    return loss;
  }
  /// The same loss, forward only.
  double loss(const Context& ctx, std::span<const RowGroup> groups) {
    const Tensor out = hidden(ctx, groups), r(out.shape(), out.dtype());
    fill(r, 77, 1, 0);
    return dot(out, r);
  }

  ParameterPool pool;
  std::unique_ptr<DecoderModel> decoder;
  std::unique_ptr<BoundAdapter> adapter;

 private:
  static constexpr int64_t kTokens = 10;

  static Half half_of(const WeightSpec& spec) {
    return spec.type.starts_with("mlp.") || spec.part == Part::mlp_norm ? Half::mlp : Half::attention;
  }
  void wrap(const Wrap& wrap, std::vector<Weight>& weights, AdapterWeights& deltas) const {
    for (size_t i = 0; i < weights.size(); ++i) {
      const auto replace = [&](ViewPtr& view) {
        if (view) view = wrap(view, pool, static_cast<int>(i));
      };
      replace(weights[i].base);
      replace(weights[i].gain);
      if (deltas.by_weight.empty()) continue;
      for (LowRank& delta : deltas.by_weight[i])
        for (ViewPtr* view : {&delta.a, &delta.bt}) replace(*view);
    }
  }

  static void fill(TensorView view, uint32_t seed, double deviation, double mean) {
    fill_normal(view, seed, deviation);
    for (int64_t i = 0; mean != 0 && i < view.shape.count(); ++i) set_element(view, i, mean + element(view, i));
  }
  static double dot(const ConstView& a, const ConstView& b) {
    double sum = 0;
    for (int64_t i = 0; i < a.shape.count(); ++i) sum += element(a, i) * element(b, i);
    return sum;
  }

  template <class F> void run(const Context& ctx, std::span<const RowGroup> groups, const PoolRead* read, F&& f) {
    if (adapter) adapter->assemble(ctx);
    const auto scope = ctx.scratch.scope();
    std::vector<int32_t> ids, positions;
    std::vector<AttentionSegment> segments;
    for (int64_t begin = 0; begin < groups.back().end; begin += kTokens) {
      for (const int32_t id : {3, 14, 1, 5, 9, 2, 6, 5, 3, 0}) ids.push_back(id);
      for (const int32_t position : {0, 1, 2, 3, 0, 1, 2, 3, 4, 0}) positions.push_back(position);
      segments.push_back({begin, begin + 4, begin, begin + 4});
      segments.push_back({begin + 4, begin + 9, begin + 4, begin + 9});
    }
    const TokenBatch batch{ids, positions, {}, segments, groups};
    PackedAttention attention;
    f(Pass{ctx, batch, read ? *read : PoolRead{&pool}}, attention);
  }

  std::unique_ptr<Adapter> adapter_;
};

/// SPSA's points side by side: each group's rows are those of a pass that reads its point alone.
inline void expect_groups_read_their_own(LooseDecoder& model) {
  OwnContext own;
  const Direction z{.seed = 3, .round = 2};
  const PoolRead plus{&model.pool, &z, 0.05f}, minus{&model.pool, &z, -0.05f};
  const int64_t n = model.tokens();
  const std::vector<RowGroup> groups = {{0, n, nullptr, &plus}, {n, 2 * n, nullptr, &minus}};
  const Tensor both = model.hidden(own.ctx, groups);
  EXPECT_FALSE(same_bytes(both.view().slice_rows(0, n), both.view().slice_rows(n, 2 * n)));
  for (size_t k = 0; k < 2; ++k) {
    const RowGroup all{0, 2 * n};
    const Tensor alone = model.hidden(own.ctx, {&all, 1}, groups[k].values);
    const auto begin = static_cast<int64_t>(k) * n;
    for (int64_t r = begin; r < begin + n; ++r)
      for (int64_t c = 0; c < alone.view().cols(); ++c)
        ASSERT_NEAR(both.view().row<float>(r)[c], alone.view().row<float>(r)[c], 1e-4);
  }
}

}  // namespace tessera::test

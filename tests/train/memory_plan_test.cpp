// The memory plan bounds what a pass takes: a run whose batches differ from the planned one must not stop for it.

#include <gtest/gtest.h>

#include "support/random_seed.h"
#include "support/tiny_model.h"
#include "train/backprop.h"

namespace tessera {
namespace {

/// Rows of documents of random lengths, with padding behind some, and each token scored with probability `scored`.
PackedBatch random_batch(std::mt19937& random, int64_t rows, int64_t length, int64_t longest, double scored) {
  PackedBatch batch;
  batch.rows = rows;
  batch.sequence_length = length;
  const auto tokens = static_cast<size_t>(rows * length);
  batch.ids.assign(tokens, 0);
  batch.positions.assign(tokens, 0);
  batch.labels.assign(tokens, -1);
  std::bernoulli_distribution is_scored(scored);
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t begin = row * length; (row + 1) * length - begin >= 2;) {
      const int64_t most = std::min(longest, (row + 1) * length - begin);
      const int64_t end = begin + 2 + static_cast<int64_t>(random() % static_cast<uint64_t>(most - 1));
      batch.documents.push_back({begin, end});
      for (int64_t t = begin; t < end; ++t) {
        batch.ids[t] = static_cast<int32_t>(random() % 23);
        batch.positions[t] = static_cast<int32_t>(t - begin);
        if (t + 1 < end && is_scored(random)) batch.labels[t] = static_cast<int32_t>(random() % 23);
      }
      begin = end;
    }
  for (size_t t = 0; t < tokens; ++t) batch.draw_index.push_back(static_cast<int64_t>(t));
  return batch;
}

/// One document a row, all of it scored: what the plan is made for.
PackedBatch full_batch(int64_t rows, int64_t length) {
  std::mt19937 random(1);
  PackedBatch batch = random_batch(random, rows, length, 2, 1);
  batch.documents.clear();
  for (int64_t row = 0; row < rows; ++row) batch.documents.push_back({row * length, (row + 1) * length});
  for (size_t t = 0; t < batch.ids.size(); ++t) {
    batch.positions[t] = static_cast<int32_t>(static_cast<int64_t>(t) % length);
    batch.labels[t] = 1;
  }
  return batch;
}

struct Case {
  std::string method;
  bool checkpoint, backward;
  friend void PrintTo(const Case& c, std::ostream* out) { *out << c.method; }
};

class MemoryPlan : public testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<Model> make_model() {
    test::TinyConfig config;
    config.layers = 2;
    Model::Settings settings = test::tiny_settings(folder_.path(), config);
    const bool shared = GetParam().method == "rps";
    settings.adapter.method = shared ? "none" : GetParam().method;
    settings.sharing.method = shared ? "rps" : "none";
    settings.sharing.min_numel = 0;
    settings.adapter.rank = 2;
    settings.adapter.dropout = 0.1;
    settings.train_base = settings.adapter.method == "none";
    settings.max_position = 400;
    return std::make_unique<Model>(settings);
  }
  static BackpropOptions options() {
    return {.checkpoint_activations = GetParam().checkpoint, .dropout = {.on = true, .seed = 1, .step = 1}};
  }
  static int64_t plan(Model& model, int64_t rows, int64_t length, int threads) {
    return GetParam().backward ? plan_backprop_bytes(model, rows, length, threads, options())
                               : plan_score_bytes(model, rows, length, threads);
  }
  int64_t peak(Model& model, const PackedBatch& batch, int64_t capacity, int threads) {
    Arena arena(capacity);
    const Context ctx{
        .device = {}, .stream = {}, .kernels = kernels_for({}, "cpu"), .scratch = arena, .threads = threads};
    model.assemble(ctx);
    if (GetParam().backward)
      backprop_batch(ctx, model, batch, options());
    else
      score_batch(ctx, model, batch);
    return arena.peak_bytes();
  }

  test::TemporaryFolder folder_;
};

TEST_P(MemoryPlan, BoundsEveryBatchThatFitsIntoIt) {
  const auto model = make_model();
  const uint32_t seed = test::random_seed();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 40; ++round) {
    const auto rows = static_cast<int64_t>(1 + random() % 5), length = static_cast<int64_t>(2 + random() % 300);
    const int threads = static_cast<int>(1 + random() % 4);
    const int64_t planned = plan(*model, rows, length, threads);
    for (const int64_t longest : {int64_t{2}, int64_t{3}, int64_t{17}, length}) {
      const auto batch = random_batch(random, static_cast<int64_t>(1 + random() % static_cast<uint64_t>(rows)), length,
                                      longest, static_cast<double>(random() % 3) / 2);
      ASSERT_NO_THROW(peak(*model, batch, planned, threads))
          << rows << " rows of " << length << ", documents up to " << longest << ", " << threads << " threads";
    }
    const PackedBatch full = full_batch(rows, length);
    ASSERT_NO_THROW(peak(*model, full, planned, threads))
        << rows << " rows of " << length << ", " << threads << " threads";
  }
}

TEST_P(MemoryPlan, AsksForLittleMoreThanIsUsed) {
  const auto model = make_model();
  const int64_t planned = plan(*model, 4, 256, 2);
  // Few rows of folded weights take a second panel a thread, which a full batch does without.
  const double panels = GetParam().method == "rps" ? 2 * 300e3 : 0;
  EXPECT_LE(static_cast<double>(planned),
            1.25 * static_cast<double>(peak(*model, full_batch(4, 256), planned, 2)) + panels);
}

TEST_P(MemoryPlan, NeedsLessWhenBlocksAreRunAgain) {
  if (!GetParam().backward) GTEST_SKIP() << "a forward pass keeps nothing";
  const auto model = make_model();
  BackpropOptions keep = options(), again = options();
  keep.checkpoint_activations = false;
  again.checkpoint_activations = true;
  EXPECT_LT(plan_backprop_bytes(*model, 4, 256, 2, again), plan_backprop_bytes(*model, 4, 256, 2, keep));
}

/// What a layer adds to the plan of training all weights: its input, the residual between its halves, q, k, v, what
/// attention gave, gate and up, and a number a head and two a token. Norms and the MLP's activation are made again.
TEST(MemoryOfALayer, IsWhatProductsMade) {
  const test::TemporaryFolder folder;
  const auto plan = [&](int64_t layers) {
    test::TinyConfig config;
    config.layers = layers;
    Model::Settings settings = test::tiny_settings(folder.path(), config);
    settings.train_base = true;
    settings.max_position = 256;
    Model model(settings);
    return plan_backprop_bytes(model, 2, 256, 2);
  };
  const test::TinyConfig c;
  const int64_t q = c.heads * c.head_dim, kv = c.kv_heads * c.head_dim, tokens = 2 * 256;
  EXPECT_EQ(plan(5) - plan(4),
            tokens * 4 * (2 * c.hidden_size + 2 * q + 2 * kv + 2 * c.intermediate_size + c.heads + 2));
}

INSTANTIATE_TEST_SUITE_P(Methods, MemoryPlan,
                         testing::Values(Case{"none", false, true}, Case{"none", true, true}, Case{"lora", false, true},
                                         Case{"lora", true, true}, Case{"mos", false, true}, Case{"mos", true, true},
                                         Case{"mos", false, false}, Case{"rps", false, true}, Case{"rps", true, true},
                                         Case{"rps", false, false}),
                         [](const auto& info) {
                           return info.param.method + (info.param.checkpoint ? "_checkpointed" : "") +
                                  (info.param.backward ? "" : "_forward_only");
                         });

}  // namespace
}  // namespace tessera

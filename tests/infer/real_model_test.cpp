// A real model of 135M parameters, where a folder of it is named: config.json, model.safetensors and, from another
// implementation, golden_logits.safetensors with input_ids [1, T] and logits [1, T, vocab].

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <numeric>

#include "core/error.h"
#include "model/packed_attention.h"
#include "support/engine.h"

namespace tessera {
namespace {

TEST(RealModel, LogitsOfSmolLm2MatchTheReference) {
  const char* folder = std::getenv("TESSERA_SMOLLM2");
  if (!folder) GTEST_SKIP() << "TESSERA_SMOLLM2 names no folder (scripts/get_smollm2 makes one)";
  const auto file = std::filesystem::path(folder) / "golden_logits.safetensors";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << file << " is not there";
  const auto expected = SafetensorsReader::open(file);
  const ConstView stored_ids = expected.at("input_ids"), logits = expected.at("logits");
  const int64_t tokens = stored_ids.shape[1], vocab = logits.shape[2];
  std::vector<int32_t> ids, rows(static_cast<size_t>(tokens));
  for (int64_t t = 0; t < tokens; ++t)
    ids.push_back(stored_ids.dtype == DType::i64 ? static_cast<int32_t>(stored_ids.row<int64_t>(0)[t])
                                                 : stored_ids.row<int32_t>(0)[t]);
  std::iota(rows.begin(), rows.end(), 0);

  const test::Engine engine("cpu", int64_t{256} << 20, 2);
  const auto model = test::load_model(folder, tokens);
  const AttentionSegment segment{0, tokens, 0, tokens};
  const RowGroup group{0, tokens, nullptr};
  const TokenBatch batch{ids, rows, {}, {&segment, 1}, {&group, 1}};
  const Pass pass{engine.ctx, batch, {&model->pool()}};
  PackedAttention attention;
  const TensorView found = engine.ctx.scratch.allocate({tokens, vocab}, DType::f32);
  double seconds = 1e9;
  for (int i = 0; i < 3; ++i) {
    const auto scope = engine.ctx.scratch.scope();
    const auto start = std::chrono::steady_clock::now();
    model->decoder().logits(pass, model->decoder().forward(pass, attention), rows, found);
    seconds = std::min(seconds, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  double difference = 0, size = 0;
  for (int64_t i = 0; i < found.shape.count(); ++i) {
    difference = std::max(difference, std::abs(element(found, i) - element(logits, i)));
    size = std::max(size, std::abs(element(logits, i)));
  }
  const double error = test::relative_error(found, logits.reshape({tokens, vocab}));
  RecordProperty("relative_error", std::to_string(error));
  fmt::print("{} tokens in {:.3f} s; logits: ||a-b|| / ||b|| = {:.2e}, max |a-b| / max |b| = {:.2e}\n", tokens, seconds,
             error, difference / size);
  EXPECT_LE(error, 1e-4);
  EXPECT_LE(difference, 1e-4 * size);
}

}  // namespace
}  // namespace tessera

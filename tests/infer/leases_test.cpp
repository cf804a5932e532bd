// Generation from weights whose bytes are in memory only while they are leased.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "infer/kv_cache.h"
#include "support/leased_view.h"
#include "support/loose_decoder.h"

namespace tessera {
namespace {

using test::LooseDecoder;
using test::LooseOptions;
using test::OwnContext;
using test::QkNorms;

/// A prompt and what follows it greedily: the logits of each step, one behind the other.
std::vector<float> continued(const Context& ctx, LooseDecoder& model, std::vector<int32_t> fed, int steps) {
  const auto scope = ctx.scratch.scope();
  if (model.adapter) model.adapter->assemble(ctx);
  CachedAttention cache(ctx.scratch, *model.decoder, 1, 16);
  std::vector<float> all;
  for (int step = 0; step < steps; ++step) {
    const auto pass_scope = ctx.scratch.scope();
    const auto count = static_cast<int64_t>(fed.size());
    std::vector<int32_t> positions(fed.size());
    for (int64_t t = 0; t < count; ++t) positions[static_cast<size_t>(t)] = static_cast<int32_t>(cache.length(0) + t);
    const AttentionSegment segment = cache.append(0, 0, count);
    const RowGroup group{0, count, model.adapter.get()};
    const TokenBatch batch{fed, positions, {}, {&segment, 1}, {&group, 1}};
    const Pass pass{ctx, batch, {&model.pool}};
    const Tensor logits({1, model.decoder->config().vocab_size}, DType::f32);
    const std::vector<int32_t> last = {static_cast<int32_t>(count) - 1};
    model.decoder->logits(pass, model.decoder->forward(pass, cache), last, logits);
    const auto values = logits.as<float>();
    all.insert(all.end(), values.begin(), values.end());
    fed = {static_cast<int32_t>(std::max_element(values.begin(), values.end()) - values.begin())};
  }
  return all;
}

TEST(Leases, OfALayerAtATimeGenerateThePlainBits) {
  OwnContext own;
  LooseOptions options{.adapter = true, .norms = QkNorms::heads};
  LooseDecoder plain(options);
  test::LeaseLog log;
  options.wrap = test::leased(log);
  LooseDecoder leased(options);
  const auto found = continued(own.ctx, leased, {3, 1, 4, 1}, 8), expected = continued(own.ctx, plain, {3, 1, 4, 1}, 8);
  EXPECT_THAT(found, testing::Each(testing::Not(testing::IsNan())));
  EXPECT_EQ(found, expected);
  EXPECT_EQ(log.held, 0);
  EXPECT_EQ(log.most_held, 11 + 2 * 7);  // the weights of a layer and its deltas
}

}  // namespace
}  // namespace tessera

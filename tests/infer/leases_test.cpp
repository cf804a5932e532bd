// Generation from weights whose bytes are in memory only while they are leased.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "infer/paged_sequence.h"
#include "infer/sampler.h"
#include "support/leased_view.h"
#include "support/loose_decoder.h"

namespace tessera {
namespace {

using test::LooseDecoder;
using test::LooseOptions;
using test::OwnContext;
using test::QkNorms;

/// A prompt and what follows it greedily: the logits of each step, one behind the other.
std::vector<float> continued(const Context& ctx, LooseDecoder& model, const std::vector<int32_t>& prompt, int steps) {
  const auto scope = ctx.scratch.scope();
  if (model.adapter) model.adapter->assemble(ctx);
  constexpr int64_t kPageTokens = 4;
  const SequenceLengths lengths{.new_tokens = steps, .step_tokens = std::ssize(prompt)};
  const int64_t bundles = PagedSequence::bundles_of(std::ssize(prompt), steps, kPageTokens);
  const KeyValuePages pages = allocate_pages(ctx.scratch, *model.decoder, bundles, kPageTokens, DType::f32);
  PagedSequence sequence(*model.decoder, prompt, lengths, pages, ctx.threads);
  std::vector<float> all;
  for (int step = 0; step < steps; ++step) {
    const auto pass_scope = ctx.scratch.scope();
    const auto logits = sequence.pass(ctx, {&model.pool}, model.adapter.get(), PagedSequence::Rows::last).as<float>();
    all.insert(all.end(), logits.begin(), logits.end());
    if (step + 1 < steps) sequence.append(most_likely(logits));
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

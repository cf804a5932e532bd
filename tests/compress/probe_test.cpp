// The probe: cosines of the residual stream's depths over the tokens of documents, padding left out.

#include "compress/probe.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/stages_bench.h"
#include "core/device/memory.h"
#include "core/error.h"
#include "score/forward.h"

namespace tessera {
namespace {

class Probing : public test::StagesBench {
 protected:
  /// x_0 and x_L of a batch, on a copy of the host.
  std::pair<Tensor, Tensor> ends(const PackedBatch& batch) {
    const auto scope = own_.ctx.scratch.scope();
    const BatchTokens in(own_.ctx, batch, nullptr);
    const Pass pass{own_.ctx, in.tokens(), {&model_.pool()}};
    PackedAttention attention;
    Tensor first({batch.tokens(), 16}, DType::f32), last({batch.tokens(), 16}, DType::f32);
    copy(model_.decoder().embed(pass), first);
    copy(model_.decoder().forward(pass, attention), last);
    return {std::move(first), std::move(last)};
  }
  static double cosine(const Tensor& x, const Tensor& y, int64_t row) {
    double xy = 0, xx = 0, yy = 0;
    for (int64_t i = 16 * row; i < 16 * (row + 1); ++i) {
      xy += element(x, i) * element(y, i);
      xx += element(x, i) * element(x, i);
      yy += element(y, i) * element(y, i);
    }
    return xy / std::sqrt(xx * yy);
  }
};

TEST_F(Probing, AveragesCosinesOverTheTokensOfDocuments) {
  // Documents of 5 tokens in rows of 12: two a row, and two places that hold nothing.
  data_ = std::make_unique<PackedDataset>(test::token_data(20, 5), 12, 1);
  const Probe probe = probe_blocks(inputs());
  double sum = 0;
  int64_t tokens = 0;
  for (int64_t place = 0; place < fold_.calibration_rows; ++place) {
    const int64_t row = data_->shuffled_row(place);
    const PackedBatch batch = data_->batch({&row, 1}, place);
    const auto [first, last] = ends(batch);
    for (const TokenRange& document : batch.documents)
      for (int64_t t = document.begin; t < document.end; ++t, ++tokens) sum += cosine(first, last, t);
  }
  EXPECT_EQ(probe.tokens, tokens);
  EXPECT_LT(tokens, fold_.calibration_rows * 12);
  EXPECT_NEAR(probe.similarity[6], sum / static_cast<double>(tokens), 1e-7);
  for (size_t i = 0; i < 7; ++i) {
    EXPECT_NEAR(probe.similarity[8 * i], 1, 1e-12);
    for (size_t j = 0; j < 7; ++j) EXPECT_EQ(probe.similarity[7 * i + j], probe.similarity[7 * j + i]);
    if (i < 6) {
      EXPECT_EQ(probe.influence[i], 1 - probe.similarity[8 * i + 1]);
    }
  }
}

TEST_F(Probing, ABlockThatAddsNothingHasNoInfluence) {
  clear(block(2).o);
  clear(block(2).down);
  const Probe probe = probe_blocks(inputs());
  EXPECT_NEAR(probe.influence[2], 0, 1e-12);
  for (const size_t other : {0, 1, 3, 4, 5}) EXPECT_GT(probe.influence[other], 1e-4) << other;
}

TEST_F(Probing, FewerRowsThanAreAskedForAreRefused) {
  fold_.calibration_rows = 41;
  EXPECT_THROW(probe_blocks(inputs()), UserError);
}

TEST_F(Probing, AStopIsHeardBetweenTwoRows) {
  StageInputs in = inputs();
  int asked = 0;
  in.stop_requested = [&] { return ++asked == 3; };
  EXPECT_THROW(probe_blocks(in), Stopped);
  EXPECT_EQ(asked, 3);
}

}  // namespace
}  // namespace tessera

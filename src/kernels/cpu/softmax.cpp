// The two vocabulary-chunk steps of cross_entropy. Rows are independent; a row of a chunk (12 KB) stays in
// the first cache through its passes: maximum, its place, exponentials.

#include "kernels/cpu/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/softmax.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/row_max-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

/// x <- exp(x - max); returns the sum.
float exponentials_of_row(float* x, int64_t n, float max) {
  FloatSums sum;
  const auto shift = hn::Set(kFloats, max);
  for_float_lanes(n, [&](int64_t i, auto vector, auto place) HWY_ATTR {
    // Lanes behind the end hold −inf, whose exponential is 0 and does not show in the sum.
    const auto e = Exp(kFloats, hn::Sub(vector.load(x + i, kMinusInfinity), shift));
    vector.store(e, x + i);
    sum.add(place, e);
  });
  return sum.sum();
}

/// x <- scale · exp(x - lse)
void probabilities_of_row(float* x, int64_t n, float lse, float scale) {
  const auto shift = hn::Set(kFloats, lse), factor = hn::Set(kFloats, scale);
  for_vectors(n, [&](int64_t i, auto vector) HWY_ATTR {
    vector.store(hn::Mul(factor, Exp(kFloats, hn::Sub(vector.load(x + i), shift))), x + i);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <algorithm>

#include "core/functions/functions.h"
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(max_of_row);
HWY_EXPORT(exponentials_of_row);
HWY_EXPORT(probabilities_of_row);

void softmax_row(const SoftmaxChunkArgs& args, int64_t n) {
  // Once through the row for the maximum, a second time for exponentials and their sum. Where the maximum stands is
  // searched only when it has moved.
  float* logits = args.logits.row<float>(n);
  const int64_t cols = args.logits.cols(), label = args.labels[n] - args.vocab_begin;
  if (0 <= label && label < cols) args.rows.target.row<float>(0)[n] = logits[label];
  float& max = args.rows.row_max.row<float>(0)[n];
  float& sum = args.rows.row_sum.row<float>(0)[n];
  int32_t& best = args.rows.best.row<int32_t>(0)[n];
  const float old_max = max, chunk_max = HWY_DYNAMIC_DISPATCH(max_of_row)(logits, cols);
  // The first chunk names a column even when all of its logits are −inf or NaN.
  if (best < 0) best = static_cast<int32_t>(args.vocab_begin);
  // Strictly greater: of equal logits the one with the lowest index stays, as in the reference.
  if (chunk_max > old_max) {
    max = chunk_max;
    best = static_cast<int32_t>(args.vocab_begin + (std::find(logits, logits + cols, max) - logits));
  }
  // Exponentials of earlier chunks were formed with the old maximum: e^(x − old) · e^(old − new) = e^(x − new).
  const float rescale = functions::exp(old_max - max);
  sum = sum * rescale + HWY_DYNAMIC_DISPATCH(exponentials_of_row)(logits, cols, max);
  args.rows.rescale.row<float>(0)[n] = rescale;
}

void gradient_row(const SoftmaxGradientArgs& args, int64_t n) {
  float* logits = args.logits.row<float>(n);
  const int64_t cols = args.logits.cols(), label = args.labels[n] - args.vocab_begin;
  const auto scale = static_cast<float>(args.grad_scale);
  HWY_DYNAMIC_DISPATCH(probabilities_of_row)(logits, cols, args.lse.row<float>(0)[n], scale);
  // softmax − onehot, the onehot part subtracted at the label's place alone.
  if (0 <= label && label < cols) logits[label] -= scale;
}

}  // namespace

void softmax_chunk(const Context& ctx, const SoftmaxChunkArgs& args) {
  parallel_for(ctx, args.logits.rows(), args.logits.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) softmax_row(args, n);
  });
}

void softmax_gradient_chunk(const Context& ctx, const SoftmaxGradientArgs& args) {
  parallel_for(ctx, args.logits.rows(), args.logits.cols(), [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) gradient_row(args, n);
  });
}

}  // namespace tessera::cpu
#endif

#include <algorithm>
#include <cmath>

#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {
namespace {

template <class T> void softmax_row(const SoftmaxChunkArgs& args, int64_t n) {
  T* logits = args.logits.row<T>(n);
  const int64_t cols = args.logits.cols(), label = args.labels[n] - args.vocab_begin;
  if (0 <= label && label < cols) args.target.as<T>()[n] = logits[label];
  T& max = args.row_max.as<T>()[n];
  const T old_max = max;
  for (int64_t c = 0; c < cols; ++c) {
    if (logits[c] > max || args.best[n] < 0) {
      max = std::max(max, logits[c]);
      args.best[n] = static_cast<int32_t>(args.vocab_begin + c);
    }
  }
  const double rescale = std::exp(static_cast<double>(old_max) - max);
  double sum = args.row_sum.as<T>()[n] * rescale;
  for (int64_t c = 0; c < cols; ++c) {
    const double e = std::exp(static_cast<double>(logits[c]) - max);
    logits[c] = static_cast<T>(e);
    sum += e;
  }
  args.row_sum.as<T>()[n] = static_cast<T>(sum);
  args.rescale.as<T>()[n] = static_cast<T>(rescale);
}

template <class T> void gradient_row(const SoftmaxGradientArgs& args, int64_t n) {
  T* logits = args.logits.row<T>(n);
  const int64_t label = args.labels[n] - args.vocab_begin;
  const double lse = args.lse.as<T>()[n];
  for (int64_t c = 0; c < args.logits.cols(); ++c)
    logits[c] = static_cast<T>(args.grad_scale * (std::exp(logits[c] - lse) - (c == label ? 1 : 0)));
}

}  // namespace

void softmax_chunk(const Context&, const SoftmaxChunkArgs& args) {
  with_compute_type(args.logits.dtype, [&](auto t) {
    for (int64_t n = 0; n < args.logits.rows(); ++n) softmax_row<decltype(t)>(args, n);
  });
}

void softmax_gradient_chunk(const Context&, const SoftmaxGradientArgs& args) {
  with_compute_type(args.logits.dtype, [&](auto t) {
    for (int64_t n = 0; n < args.logits.rows(); ++n) gradient_row<decltype(t)>(args, n);
  });
}

}  // namespace tessera::reference

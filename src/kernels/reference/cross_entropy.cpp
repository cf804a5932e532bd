// The softmax of a row whose logits come in chunks. Between chunks a row keeps its maximum m, its sum of exp(z − m),
// the logit of its label and the place of its largest logit; when m rises, the sum is multiplied by e^(old m − new m).
// Behind the last chunk
//   nll = log Σ exp(z) − z_label = (m − z_label) + log sum,   dnll/dz = exp(z − lse) − onehot

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/functions/functions.h"
#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {
namespace {

template <class T> void softmax_row(const SoftmaxChunkArgs& args, int64_t n) {
  T* logits = args.logits.row<T>(n);
  const int64_t cols = args.logits.cols(), label = args.labels[n] - args.vocab_begin;
  if (0 <= label && label < cols) args.rows.target.as<T>()[n] = logits[label];
  T& max = args.rows.row_max.as<T>()[n];
  int32_t& best = args.rows.best.as<int32_t>()[n];
  const T old_max = max;
  for (int64_t c = 0; c < cols; ++c) {
    if (logits[c] > max || best < 0) {  // best < 0: the very first logit stands, even when it is −inf
      max = std::max(max, logits[c]);
      best = static_cast<int32_t>(args.vocab_begin + c);
    }
  }
  // Exponentials of earlier chunks were formed with the old maximum: e^(x − old) · e^(old − new) = e^(x − new).
  const double rescale = std::exp(static_cast<double>(old_max) - max);
  double sum = args.rows.row_sum.as<T>()[n] * rescale;
  for (int64_t c = 0; c < cols; ++c) {
    const double e = std::exp(static_cast<double>(logits[c]) - max);
    logits[c] = static_cast<T>(e);
    sum += e;
  }
  args.rows.row_sum.as<T>()[n] = static_cast<T>(sum);
  args.rows.rescale.as<T>()[n] = static_cast<T>(rescale);
}

template <class T> void gradient_row(const SoftmaxGradientArgs& args, int64_t n) {
  T* logits = args.logits.row<T>(n);
  const int64_t label = args.labels[n] - args.vocab_begin;
  const double lse = args.lse.as<T>()[n];
  for (int64_t c = 0; c < args.logits.cols(); ++c)
    logits[c] = static_cast<T>(args.grad_scale * (std::exp(logits[c] - lse) - (c == label ? 1 : 0)));
}

template <class T> void begin_rows(const SoftmaxRows& rows) {
  std::ranges::fill(rows.row_max.as<T>(), -std::numeric_limits<T>::infinity());
  std::ranges::fill(rows.row_sum.as<T>(), T{0});
  std::ranges::fill(rows.target.as<T>(), T{0});
  std::ranges::fill(rows.best.as<int32_t>(), -1);
}

template <class T> void finish_rows(const SoftmaxFinishArgs& args) {
  const auto max = args.rows.row_max.as<T>(), sum = args.rows.row_sum.as<T>(), target = args.rows.target.as<T>();
  const auto nll = args.nll.as<T>();
  for (size_t n = 0; n < nll.size(); ++n) {
    const T log_sum = functions::log(sum[n]);  // the cpu backend finishes here, too
    nll[n] = (max[n] - target[n]) + log_sum;   // the large numbers cancel before the small one is added
    max[n] += log_sum;
    if (args.grad_scale) sum[n] = static_cast<T>(*args.grad_scale / sum[n]);
  }
  if (args.grad_scale) std::ranges::fill(args.rows.rescale.as<T>(), static_cast<T>(-*args.grad_scale));
}

}  // namespace

void softmax_begin(const Context&, const SoftmaxRows& rows) {
  with_compute_type(rows.row_max.dtype, [&](auto t) { begin_rows<decltype(t)>(rows); });
}

void softmax_finish(const Context&, const SoftmaxFinishArgs& args) {
  with_compute_type(args.nll.dtype, [&](auto t) { finish_rows<decltype(t)>(args); });
}

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

// The distance of two states after each was divided by its own root mean square: a student is not asked to copy the
// size of its teacher's states, which the next norm takes away again.

#include <cmath>

#include "kernels/reference/reference_kernels.h"
#include "kernels/reference/types.h"

namespace tessera::reference {
namespace {

template <class T> double inverse_rms(const T* x, int64_t dim, double eps) {
  double squares = 0;
  for (int64_t c = 0; c < dim; ++c) squares += static_cast<double>(x[c]) * x[c];
  return 1 / std::sqrt(squares / static_cast<double>(dim) + eps);
}

template <class T> double row_loss(const TailLossArgs& args, int64_t r) {
  const int64_t dim = args.student.cols();
  const T *student = args.student.row<T>(r), *teacher = args.teacher.row<T>(r);
  const double s = inverse_rms(student, dim, args.eps), t = inverse_rms(teacher, dim, args.eps);
  double squares = 0, along = 0;  // Σ e², Σ e · n
  for (int64_t c = 0; c < dim; ++c) {
    const double e = student[c] * s - teacher[c] * t;
    squares += e * e;
    along += e * student[c] * s;
  }
  const auto count = static_cast<double>(dim);
  if (!args.dstudent.empty()) {
    T* gradient = args.dstudent.row<T>(r);
    // The gradient of ‖e‖² / dim through n = x · r: what e has along n falls out, since n's length is fixed.
    const double scale = args.grad_scale * 2 / count * s;
    for (int64_t c = 0; c < dim; ++c) {
      const double n = student[c] * s, e = n - teacher[c] * t;
      gradient[c] = static_cast<T>(gradient[c] + scale * (e - n * along / count));
    }
  }
  return squares / count;
}

}  // namespace

void tail_loss(const Context&, const TailLossArgs& args) {
  with_compute_type(args.student.dtype, [&](auto t) {
    const auto loss = args.loss.as<double>();
    for (size_t i = 0; i < args.rows.size(); ++i) loss[i] += row_loss<decltype(t)>(args, args.rows[i]);
  });
}

}  // namespace tessera::reference

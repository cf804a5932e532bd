// Norms, softmax and sums that add in any order: vectors of the machine's width, several running sums, gradients of a
// norm's weight together with that of its input, in blocks of rows. Included once per instruction set by
// free_order_bench.cpp.

#if defined(TESSERA_BENCH_FREE_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef TESSERA_BENCH_FREE_ROWS_INL_H_
#undef TESSERA_BENCH_FREE_ROWS_INL_H_
#else
#define TESSERA_BENCH_FREE_ROWS_INL_H_
#endif

#include <cmath>

#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/row_max-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::free_order::HWY_NAMESPACE {

using namespace tessera::cpu::HWY_NAMESPACE;  // NOLINT: the lanes that both are built of

/// step(i, sum) for each vector of n elements, in kSums running sums; n is a multiple of the lanes in what is measured.
template <int kSums, class Step> HWY_INLINE float sum_along(int64_t n, Step&& step) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(kFloats));
  FloatVec sums[kSums];
  for (FloatVec& sum : sums) sum = hn::Zero(kFloats);
  int64_t i = 0;
  for (; i + kSums * lanes <= n; i += kSums * lanes)
    for (int s = 0; s < kSums; ++s) sums[s] = step(i + s * lanes, sums[s]);
  for (; i < n; i += lanes) sums[0] = step(i, sums[0]);
  for (int s = 1; s < kSums; ++s) sums[0] = hn::Add(sums[0], sums[s]);
  return hn::GetLane(hn::SumOfLanes(kFloats, sums[0]));
}

void norm_rows(ConstView x, ConstView weight, double eps, TensorView y, float* inv_rms, int64_t begin, int64_t end) {
  const int64_t dim = x.cols();
  const float* w = weight.row<float>(0);
  for (int64_t r = begin; r < end; ++r) {
    const float* row = x.row<float>(r);
    float* out = y.row<float>(r);
    const double squares = sum_along<4>(dim, [&](int64_t i, FloatVec sum) HWY_ATTR {
      const auto v = hn::LoadU(kFloats, row + i);
      return fused(v, v, sum);
    });
    inv_rms[r] = static_cast<float>(1 / std::sqrt(squares / static_cast<double>(dim) + eps));
    const auto factor = hn::Set(kFloats, inv_rms[r]);
    for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
      vector.store(hn::Mul(hn::Mul(vector.load(row + i), factor), vector.load(w + i)), out + i);
    });
  }
}

/// dweight: of these rows alone; null without.
void norm_backward_rows(ConstView x, ConstView weight, const float* inv_rms, ConstView dy, TensorView dx,
                        float* dweight, int64_t begin, int64_t end) {
  const int64_t dim = x.cols();
  const float* w = weight.row<float>(0);
  for (int64_t r = begin; r < end; ++r) {
    const float *row = x.row<float>(r), *dout = dy.row<float>(r);
    float* din = dx.row<float>(r);
    const float dot = sum_along<4>(dim, [&](int64_t i, FloatVec sum) HWY_ATTR {
      const auto g = hn::Mul(hn::LoadU(kFloats, dout + i), hn::LoadU(kFloats, w + i));
      return fused(g, hn::LoadU(kFloats, row + i), sum);
    });
    const auto inv = hn::Set(kFloats, inv_rms[r]);
    const auto mean = hn::Set(kFloats, dot * inv_rms[r] / static_cast<float>(dim));
    for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
      const auto n = hn::Mul(vector.load(row + i), inv), d = vector.load(dout + i);
      const auto g = hn::Mul(d, vector.load(w + i));
      vector.store(fused(inv, fused_minus(n, mean, g), vector.load(din + i)), din + i);
      if (dweight) vector.store(fused(d, n, vector.load(dweight + i)), dweight + i);
    });
  }
}

/// x <- exp(x - max); returns the sum.
float exponentials_of_row(float* x, int64_t n, float max) {
  const auto shift = hn::Set(kFloats, max);
  return sum_along<2>(n, [&](int64_t i, FloatVec sum) HWY_ATTR {
    const auto e = Exp(kFloats, hn::Sub(hn::LoadU(kFloats, x + i), shift));
    hn::StoreU(e, kFloats, x + i);
    return hn::Add(sum, e);
  });
}

float greatest_of_row(const float* x, int64_t n) { return max_of_row(x, n); }

double squares_of_run(const float* x, int64_t n) {
  constexpr int kSums = 4;
  const auto lanes = static_cast<int64_t>(hn::Lanes(kDoubles));
  DoubleVec sums[kSums];
  for (DoubleVec& sum : sums) sum = hn::Zero(kDoubles);
  for (int64_t i = 0; i + kSums * lanes <= n; i += kSums * lanes)  // n is a multiple of that in what is measured
    for (int s = 0; s < kSums; ++s) {
      const DoubleVec v = wide(hn::LoadU(kHalf, x + i + s * lanes));
      sums[s] = hn::MulAdd(v, v, sums[s]);
    }
  return hn::GetLane(hn::SumOfLanes(kDoubles, hn::Add(hn::Add(sums[0], sums[1]), hn::Add(sums[2], sums[3]))));
}

}  // namespace tessera::free_order::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif

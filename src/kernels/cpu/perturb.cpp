// A step along a direction: values + scale · z, the signs of a run made just before its values go by.

#include "kernels/cpu/targets.h"
#include "kernels/votes.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/perturb.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/signs-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {
namespace {

template <class W> void perturb_values(const W* values, const float* steps, int64_t n, float* out) {
  for_vectors(n, [&](int64_t i, auto vector) HWY_ATTR {
    vector.store(hn::Add(vector.load(values + i), hn::LoadU(kFloats, steps + i)), out + i);
  });
}

/// Asks the second-level cache for the run after this one: memory would rest while signs are made, and a hardware
/// prefetcher starts anew at each page. perturb of 10 M weights takes 3.5 ms with it, 5.3 without,
/// and `add` with its traffic 2.8.
HWY_INLINE void prefetch_next(const void* run, int64_t bytes) {
  // A cache line a time. The last two arguments: for reading, and into the second-level cache.
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const std::byte*>(run) + bytes + i, 0, 2);
}

/// ±scale for the weights of a run.
void step_run(const uint32_t* words, int64_t blocks, float scale, float* steps) {
  // A sign picks one of two values: nothing is multiplied, and nothing rounded.
  const auto plus = hn::Set(kFloats, scale), minus = hn::Set(kFloats, -scale);
  for (int64_t j = 0; j < kVectors; ++j) {
    const auto bit = bits_of_vector(j);
    for (int64_t b = 0; b < blocks; ++b) {
      for (int64_t w = 0; w < 4; ++w) {
        const auto negative = hn::TestBit(hn::Set(kWords, words[w * kRunBlocks + b]), bit);
        hn::Store(hn::IfThenElse(hn::RebindMask(kFloats, negative), minus, plus), kFloats,
                  steps + b * kSignBlock + w * 32 + j * kRunBlocks);
      }
    }
  }
}

void perturb_range(const void* values, DType dtype, const Direction* z, float scale, int64_t begin, int64_t end,
                   float* out) {
  HWY_ALIGN uint32_t words[kRunWords];
  // A vector more than a run has: loads may begin anywhere in it and pass its end.
  HWY_ALIGN float steps[kRun + kRunBlocks];
  const RoundKeys keys(z->seed);
  const int64_t bytes = size_of(dtype);
  for_runs(begin, end, [&](uint64_t block, int64_t blocks, int64_t from, int64_t offset, int64_t n) HWY_ATTR {
    const int64_t i = from - begin;
    prefetch_next(static_cast<const std::byte*>(values) + i * bytes, n * bytes);
    prefetch_next(out + i, n * static_cast<int64_t>(sizeof(float)));
    sign_run(keys, *z, block, words);
    // In Hadamard groups many directions share one draw of signs and differ by a row of the Walsh matrix, which is
    // applied bit by bit to the words.
    if (z->lanes != 0) turn_run(*z, block, words);
    step_run(words, blocks, scale, steps);
    if (dtype == DType::bf16)
      perturb_values(static_cast<const BFloat16*>(values) + i, steps + offset, n, out + i);
    else if (dtype == DType::f16)
      perturb_values(static_cast<const Float16*>(values) + i, steps + offset, n, out + i);
    else
      perturb_values(static_cast<const float*>(values) + i, steps + offset, n, out + i);
  });
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/reference/reference_kernels.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(perturb_range);

}  // namespace

void perturb(const Context& ctx, ConstView values, int64_t first, const Direction& z, float scale, TensorView out) {
  if (out.dtype == DType::f64) return reference::perturb(ctx, values, first, z, scale, out);
  const auto* in = static_cast<const std::byte*>(values.data);
  auto* to = static_cast<float*>(out.mutable_data());
  for_sign_blocks(ctx, first, values.shape.count(), 1, [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(perturb_range)
    (in + (begin - first) * size_of(values.dtype), values.dtype, &z, scale, begin, end, to + (begin - first));
  });
}

}  // namespace tessera::cpu
#endif

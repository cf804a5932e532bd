// Rows are shared out over the threads. Codes of i8 are formed in vectors, the other types copied or rounded.

#include <cmath>
#include <cstring>

#include "kernels/cpu/targets.h"
#include "kernels/key_value_pages.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/paged_write.cpp"
#include "hwy/foreach_target.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace tessera::cpu {
namespace HWY_NAMESPACE {

/// The scale and the codes of one head. Returns whether all numbers are finite.
bool quantise(const float* x, int64_t dim, int8_t* to, float* scale) {
  const hn::Rebind<int8_t, Floats> bytes;
  const hn::Rebind<int32_t, Floats> words;
  FloatVec largest = hn::Zero(kFloats), surplus = hn::Zero(kFloats);
  for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
    const FloatVec v = vector.load(x + i);
    largest = hn::Max(largest, hn::Abs(v));
    surplus = hn::Add(surplus, hn::Sub(v, v));  // 0, and NaN of what is not finite
  });
  const bool finite = hn::GetLane(hn::SumOfLanes(kFloats, surplus)) == 0;
  *scale = finite ? hn::GetLane(hn::MaxOfLanes(kFloats, largest)) / 127 : 0;
  if (*scale == 0) {
    std::memset(to, 0, static_cast<size_t>(dim));
    return finite;
  }
  const FloatVec divisor = hn::Set(kFloats, *scale), most = hn::Set(kFloats, 127.0f);
  for_vectors(dim, [&](int64_t i, auto vector) HWY_ATTR {
    const FloatVec code = hn::Round(hn::Div(vector.load(x + i), divisor));
    const auto whole = hn::ConvertTo(words, hn::Min(hn::Max(code, hn::Neg(most)), most));
    int8_t codes[HWY_MAX_BYTES / sizeof(float)];
    hn::StoreU(hn::DemoteTo(bytes, whole), bytes, codes);
    std::memcpy(to + i, codes, static_cast<size_t>(std::min<int64_t>(hn::Lanes(kFloats), dim - i)));
  });
  return true;
}

}  // namespace HWY_NAMESPACE
}  // namespace tessera::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels/cpu/cpu_kernels.h"
#include "kernels/cpu/parallel.h"

namespace tessera::cpu {
namespace {

HWY_EXPORT(quantise);

bool round_to_f16(const float* x, int64_t dim, Float16* to) {
  bool fits = true;
  for (int64_t d = 0; d < dim; ++d) {
    to[d] = to_float16(x[d]);
    if ((to[d].bits & 0x7fff) == 0x7c00) fits = false;
  }
  return fits;
}

/// One head of one row. Returns whether the page can hold it.
bool write_head(const float* x, int64_t dim, const TensorView& to, const TensorView& scales, int64_t page,
                int64_t entry) {
  switch (to.dtype) {
    case DType::i8:
      return HWY_DYNAMIC_DISPATCH(quantise)(x, dim, to.row<int8_t>(page) + entry * dim,
                                            scales.row<float>(page) + entry);
    case DType::f16:
      return round_to_f16(x, dim, to.row<Float16>(page) + entry * dim);
    case DType::bf16:
      for (int64_t d = 0; d < dim; ++d) to.row<BFloat16>(page)[entry * dim + d] = to_bfloat16(x[d]);
      return true;
    default:
      std::copy_n(x, dim, to.row<float>(page) + entry * dim);
      return true;
  }
}

void write_row(const WritePagesArgs& args, int64_t row) {
  const auto r = static_cast<size_t>(row);
  int32_t& fault = args.fault.as<int32_t>()[r];
  fault = 0;
  if (args.page[r] < 0) return;
  const int64_t dim = args.head_dim, entry = args.entry[r];
  for (int64_t h = 0; h < args.kv_heads; ++h) {
    const int64_t page = args.page[r] + args.page_base + h;
    const bool k = write_head(args.k.row<float>(row) + h * dim, dim, args.pages.k, args.pages.k_scale, page, entry);
    const bool v = write_head(args.v.row<float>(row) + h * dim, dim, args.pages.v, args.pages.v_scale, page, entry);
    if (fault == 0 && !(k && v)) fault = static_cast<int32_t>(h + 1);
    if (!args.pages.position.empty()) args.pages.position.row<int32_t>(page)[entry] = args.position[r];
  }
}

}  // namespace

void write_pages(const Context& ctx, const WritePagesArgs& args) {
  parallel_for(ctx, args.k.shape[0], 2 * args.kv_heads * args.head_dim, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) write_row(args, row);
  });
}

}  // namespace tessera::cpu
#endif

#pragma once
// Argument checks of the public ops: each op checks once, backends trust it.

#include "core/error.h"
#include "core/index_array.h"
#include "kernels/table.h"

namespace tessera {

/// Whether arithmetic is skipped and memory only planned: then no element may be read, not even an index.
inline bool is_counting(const Context& ctx) { return ctx.kernels.backend == "counting"; }

/// The checks of one call. Names are those of the op's contract; the compute dtype is the first operand's.
/// @throws InternalError "rms_norm: weight is [512], expected [128]"
class Arguments {
 public:
  /// Compute dtype: f32; f64 too on "reference" and "counting".
  Arguments(const Context&, const char* op, DType compute);

  /// A [rows, cols] matrix of the compute dtype; rows may be strided.
  void matrix(const char* name, const ConstView&, int64_t rows, int64_t cols) const;
  /// A [count] vector of the compute dtype.
  void vector(const char* name, const ConstView&, int64_t count) const;
  /// A weight of that shape, contiguous rows, stored in the compute dtype, f32, bf16 or f16.
  void weight(const char* name, const ConstView&, Shape) const;
  /// A contiguous [count] vector of f64, which sums of any compute dtype are added to.
  void sums(const char* name, const ConstView&, int64_t count) const;
  /// A contiguous [count] vector of integers.
  void integers(const char* name, const ConstView&, DType, int64_t count) const;
  /// Pages of keys and values with what their type and the pool have.
  void pages(const KeyValuePages&, int64_t head_dim) const;
  void count(const char* name, int64_t found, int64_t expected) const;
  /// `out` starts nowhere an input starts.
  void no_alias(const char* out_name, const ConstView& out, const char* in_name, const ConstView& in) const;
  /// The array lies where the op runs.
  template <class T> void place(const char* name, IndexArray<T> array) const {
    TS_CHECK(array.device() == ctx_.device || array.empty(), "{}: {} lives on another device", op_, name);
  }
  /// Every index lies in [0, limit).
  void indices(const char* name, IndexArray<int32_t>, int64_t limit) const;

 private:
  void place(const char* name, const ConstView&) const;
  /// [pages, cols] of one of some types; rows may be strided.
  void page_rows(const char* name, const ConstView&, Shape, std::initializer_list<DType>) const;
  const Context& ctx_;
  const char* op_;
  DType compute_;
};

}  // namespace tessera

#include "kernels/checks.h"

#include <algorithm>

#include "core/error.h"

namespace tessera {

Arguments::Arguments(const Context& ctx, const char* op, DType compute) : ctx_(ctx), op_(op), compute_(compute) {
  const bool has_f64 = ctx.kernels.backend == "reference" || is_counting(ctx);
  TS_CHECK(compute == DType::f32 || (compute == DType::f64 && has_f64), "{}: the {} backend does not compute in {}", op,
           ctx.kernels.backend, name_of(compute));
}

void Arguments::place(const char* name, const ConstView& view) const {
  TS_CHECK(view.data != nullptr || view.shape.count() == 0, "{}: {} is missing", op_, name);
  TS_CHECK(view.device == ctx_.device, "{}: {} lives on another device", op_, name);
}

void Arguments::matrix(const char* name, const ConstView& view, int64_t rows, int64_t cols) const {
  place(name, view);
  TS_CHECK((view.shape == Shape{rows, cols}), "{}: {} is {}, expected [{}, {}]", op_, name, view.shape.text(), rows,
           cols);
  TS_CHECK(view.dtype == compute_, "{}: {} holds {}, expected {}", op_, name, name_of(view.dtype), name_of(compute_));
  TS_CHECK(cols <= 1 || view.strides[1] == 1, "{}: the columns of {} are strided", op_, name);
}

void Arguments::vector(const char* name, const ConstView& view, int64_t count) const {
  place(name, view);
  TS_CHECK(view.shape == Shape{count}, "{}: {} is {}, expected [{}]", op_, name, view.shape.text(), count);
  TS_CHECK(view.dtype == compute_, "{}: {} holds {}, expected {}", op_, name, name_of(view.dtype), name_of(compute_));
  TS_CHECK(view.is_contiguous(), "{}: {} is strided", op_, name);
}

void Arguments::weight(const char* name, const ConstView& view, Shape shape) const {
  place(name, view);
  TS_CHECK(view.shape == shape, "{}: {} is {}, expected {}", op_, name, view.shape.text(), shape.text());
  const bool known =
      view.dtype == compute_ || view.dtype == DType::f32 || view.dtype == DType::bf16 || view.dtype == DType::f16;
  TS_CHECK(known, "{}: {} holds {}, expected {}, f32, bf16 or f16", op_, name, name_of(view.dtype), name_of(compute_));
  TS_CHECK(shape[shape.rank - 1] <= 1 || view.strides[shape.rank - 1] == 1, "{}: the columns of {} are strided", op_,
           name);
}

void Arguments::sums(const char* name, const ConstView& view, int64_t count) const {
  place(name, view);
  TS_CHECK(view.shape == Shape{count} && view.dtype == DType::f64 && view.is_contiguous(),
           "{}: {} is {} of {}, expected [{}] of f64", op_, name, view.shape.text(), name_of(view.dtype), count);
}

void Arguments::integers(const char* name, const ConstView& view, DType dtype, int64_t count) const {
  place(name, view);
  TS_CHECK(view.shape == Shape{count} && view.dtype == dtype && view.is_contiguous(),
           "{}: {} is {} of {}, expected [{}] of {}", op_, name, view.shape.text(), name_of(view.dtype), count,
           name_of(dtype));
}

void Arguments::page_rows(const char* name, const ConstView& view, Shape shape,
                          std::initializer_list<DType> types) const {
  place(name, view);
  TS_CHECK(view.shape == shape, "{}: pages.{} is {}, expected {}", op_, name, view.shape.text(), shape.text());
  TS_CHECK(std::find(types.begin(), types.end(), view.dtype) != types.end(), "{}: pages.{} holds {}", op_, name,
           name_of(view.dtype));
  TS_CHECK(shape[1] <= 1 || view.strides[1] == 1, "{}: the columns of pages.{} are strided", op_, name);
}

void Arguments::pages(const KeyValuePages& pages, int64_t head_dim) const {
  const int64_t count = pages.k.shape[0], room = pages.page_tokens;
  TS_CHECK(room > 0, "{}: pages of {} entries", op_, room);
  page_rows("k", pages.k, {count, room * head_dim}, {compute_, DType::f32, DType::bf16, DType::f16, DType::i8});
  page_rows("v", pages.v, {count, room * head_dim}, {pages.k.dtype});
  const bool scaled = pages.k.dtype == DType::i8;
  const struct {
    const char* name;
    const TensorView& view;
    DType dtype;
    bool wanted, known;
  } others[] = {{"k_scale", pages.k_scale, DType::f32, scaled, scaled},
                {"v_scale", pages.v_scale, DType::f32, scaled, scaled},
                {"position", pages.position, DType::i32, false, true},
                {"bias", pages.bias, DType::f32, false, true}};
  for (const auto& other : others) {
    TS_CHECK(other.known || other.view.empty(), "{}: pages.{} beside pages of {}", op_, other.name,
             name_of(pages.k.dtype));
    if (other.wanted || !other.view.empty()) page_rows(other.name, other.view, {count, room}, {other.dtype});
  }
}

void Arguments::count(const char* name, int64_t found, int64_t expected) const {
  TS_CHECK(found == expected, "{}: {} has {} entries, expected {}", op_, name, found, expected);
}

void Arguments::no_alias(const char* out_name, const ConstView& out, const char* in_name, const ConstView& in) const {
  if (is_counting(ctx_) || out.empty() || in.empty() || out.shape.count() == 0) return;
  TS_CHECK(out.data != in.data, "{}: {} may not alias {}", op_, out_name, in_name);
}

void Arguments::indices(const char* name, IndexArray<int32_t> array, int64_t limit) const {
  place(name, array);
  if (is_counting(ctx_)) return;
  const auto values = array.host();
  for (size_t i = 0; i < values.size(); ++i)
    TS_CHECK(0 <= values[i] && values[i] < limit, "{}: {}[{}] is {}, expected 0 to {}", op_, name, i, values[i],
             limit - 1);
}

}  // namespace tessera

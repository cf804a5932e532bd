#include "core/tensor.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/device/memory.h"
#include "core/error.h"

namespace tessera {

int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
    case DType::f16:
      return 2;
    case DType::i8:
    case DType::u8:
      return 1;
  }
  return 0;
}

std::string_view name_of(DType dtype) {
  constexpr std::string_view kNames[] = {"f64", "f32", "bf16", "f16", "i64", "i32", "i8", "u8"};
  return kNames[static_cast<int>(dtype)];
}

bool is_floating(DType dtype) { return dtype <= DType::f16; }

float to_float(BFloat16 value) { return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16); }

// Halves in integers: compilers that have _Float16 have it on some machines only (g++ 12: not on ARM).
float to_float(Float16 value) {
  const uint32_t sign = (value.bits & 0x8000u) << 16, magnitude = value.bits & 0x7fffu;
  if (magnitude < 0x0400u) return std::copysign(static_cast<float>(magnitude) * 0x1p-24f, std::bit_cast<float>(sign));
  if (magnitude < 0x7c00u) return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
  const uint32_t quiet = magnitude > 0x7c00u ? 0x00400000u : 0;
  return std::bit_cast<float>(sign | 0x7f800000u | (magnitude << 13) | quiet);
}

BFloat16 to_bfloat16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40u)};  // stays a NaN
  // To nearest even: just under a half of the last kept bit is added, and a half when that bit is odd. A carry may run
  // into the exponent, which is the next larger number, or infinity.
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

Float16 to_float16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), magnitude = bits & 0x7fffffffu, sign = (bits >> 16) & 0x8000u;
  const auto signed_half = [&](uint32_t half) { return Float16{static_cast<uint16_t>(sign | half)}; };
  if (magnitude > 0x7f800000u) return signed_half(0x7e00u | ((magnitude >> 13) & 0x03ffu));  // stays a NaN
  if (magnitude >= 0x47800000u) return signed_half(0x7c00u);                                 // 2^16 and more
  // A subnormal is a multiple of 2^-24, the spacing of floats from a half on: adding a half rounds.
  if (magnitude < 0x38800000u) return signed_half(std::bit_cast<uint32_t>(std::abs(value) + 0.5f) - 0x3f000000u);
  return signed_half((magnitude - 0x38000000u + 0x0fffu + ((magnitude >> 13) & 1u)) >> 13);  // as above
}

Shape::Shape(std::initializer_list<int64_t> sizes) : rank(static_cast<int>(sizes.size())) {
  TS_CHECK(sizes.size() <= 4, "a shape has at most 4 dimensions, not {}", sizes.size());
  std::copy(sizes.begin(), sizes.end(), dims.begin());
}

int64_t Shape::count() const {
  int64_t product = 1;
  for (int axis = 0; axis < rank; ++axis) product *= dims[axis];
  return product;
}

namespace {

void check_host(const ConstView& view) {
  TS_CHECK(view.device == Device{}, "elements that lie on a device are read through download()");
}

}  // namespace

std::string Shape::text() const {
  std::string text = "[";
  for (int axis = 0; axis < rank; ++axis) text += (axis ? ", " : "") + std::to_string(dims[axis]);
  return text + "]";
}

bool operator==(const Shape& a, const Shape& b) {
  return a.rank == b.rank && std::equal(a.dims.begin(), a.dims.begin() + a.rank, b.dims.begin());
}

ConstView::ConstView(const void* data, Shape shape, DType dtype, Device device)
    : data(data), shape(shape), dtype(dtype), device(device) {
  int64_t stride = 1;
  for (int axis = shape.rank - 1; axis >= 0; --axis) {
    strides[axis] = stride;
    stride *= shape[axis];
  }
}

bool ConstView::is_contiguous() const {
  int64_t stride = 1;
  for (int axis = shape.rank - 1; axis >= 0; --axis) {
    if (shape[axis] != 1 && strides[axis] != stride) return false;
    stride *= shape[axis];
  }
  return true;
}

ConstView ConstView::slice_rows(int64_t begin, int64_t end) const {
  TS_CHECK(shape.rank >= 1 && 0 <= begin && begin <= end && end <= shape[0], "rows {}..{} of {}", begin, end,
           shape.text());
  ConstView view = *this;
  view.shape.dims[0] = end - begin;
  view.data = static_cast<const std::byte*>(data) + begin * strides[0] * size_of(dtype);
  return view;
}

ConstView ConstView::slice_cols(int64_t begin, int64_t end) const {
  TS_CHECK(shape.rank == 2 && 0 <= begin && begin <= end && end <= shape[1], "columns {}..{} of {}", begin, end,
           shape.text());
  ConstView view = *this;
  view.shape.dims[1] = end - begin;
  view.data = static_cast<const std::byte*>(data) + begin * size_of(dtype);
  return view;
}

ConstView ConstView::reshape(Shape to) const {
  TS_CHECK(is_contiguous() && to.count() == shape.count(), "{} cannot be reshaped to {}", shape.text(), to.text());
  return ConstView(data, to, dtype, device);
}

void ConstView::check_flat(DType wanted) const {
  check_host(*this);
  TS_CHECK(dtype == wanted, "view holds {}, asked for {}", name_of(dtype), name_of(wanted));
  TS_CHECK(is_contiguous(), "view {} is not contiguous", shape.text());
}

Tensor::Tensor(Shape shape, DType dtype, Device device)
    : shape_(shape), dtype_(dtype), data_(memory_of(device).allocate(shape.count() * size_of(dtype)), Free{device}) {}

void Tensor::Free::operator()(std::byte* memory) const { memory_of(device).free(memory); }

void check_count(size_t values, const Shape& shape) {
  TS_CHECK(static_cast<int64_t>(values) == shape.count(), "{} values for shape {}", values, shape.text());
}

double element(const ConstView& view, int64_t i) {
  check_host(view);
  switch (view.dtype) {
    case DType::f64:
      return static_cast<const double*>(view.data)[i];
    case DType::f32:
      return static_cast<const float*>(view.data)[i];
    case DType::bf16:
      return to_float(static_cast<const BFloat16*>(view.data)[i]);
    case DType::f16:
      return to_float(static_cast<const Float16*>(view.data)[i]);
    default:
      break;
  }
  TS_CHECK(false, "element() of a {} view", name_of(view.dtype));
  return 0;
}

void set_element(const TensorView& view, int64_t i, double value) {
  check_host(view);
  switch (view.dtype) {
    case DType::f64:
      static_cast<double*>(view.mutable_data())[i] = value;
      return;
    case DType::f32:
      static_cast<float*>(view.mutable_data())[i] = static_cast<float>(value);
      return;
    case DType::bf16:
      static_cast<BFloat16*>(view.mutable_data())[i] = to_bfloat16(static_cast<float>(value));
      return;
    case DType::f16:
      static_cast<Float16*>(view.mutable_data())[i] = to_float16(static_cast<float>(value));
      return;
    default:
      TS_CHECK(false, "set_element() of a {} view", name_of(view.dtype));
  }
}

}  // namespace tessera

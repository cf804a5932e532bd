#pragma once
// Tensors: dtype, shape, non-owning views and the owning Tensor. No arithmetic here: that is kernels/.

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <ranges>
#include <span>
#include <string>
#include <string_view>

namespace tessera {

/// Storage types. Arithmetic accumulates in f32 or wider; f64 exists for references and gradient checks.
enum class DType : uint8_t { f64, f32, bf16, f16, i64, i32, i8, u8 };

int64_t size_of(DType);
std::string_view name_of(DType);  // "f32", "bf16", ...
bool is_floating(DType);

/// bf16 and f16 as raw bits; conversions round to nearest even.
struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};
float to_float(BFloat16);
float to_float(Float16);
BFloat16 to_bfloat16(float);
Float16 to_float16(float);

template <class T> struct DTypeOf;
template <> struct DTypeOf<double> { static constexpr DType value = DType::f64; };
template <> struct DTypeOf<float> { static constexpr DType value = DType::f32; };
template <> struct DTypeOf<BFloat16> { static constexpr DType value = DType::bf16; };
template <> struct DTypeOf<Float16> { static constexpr DType value = DType::f16; };
template <> struct DTypeOf<int64_t> { static constexpr DType value = DType::i64; };
template <> struct DTypeOf<int32_t> { static constexpr DType value = DType::i32; };
template <> struct DTypeOf<int8_t> { static constexpr DType value = DType::i8; };
template <> struct DTypeOf<uint8_t> { static constexpr DType value = DType::u8; };

/// A contiguous range of numbers that a view can show: a vector, an array, a span.
template <class Range>
concept HostNumbers = std::ranges::contiguous_range<Range> && std::ranges::sized_range<Range> && requires {
  DTypeOf<std::ranges::range_value_t<Range>>::value;
};

struct Device {
  enum class Kind : uint8_t { cpu, cuda, far } kind = Kind::cpu;  // far: for tests (core/device/memory.h)
  int index = 0;
  friend bool operator==(const Device&, const Device&) = default;
};

/// Up to four dimensions, no heap.
struct Shape {
  std::array<int64_t, 4> dims{};
  int rank = 0;

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes);
  int64_t operator[](int axis) const { return dims[axis]; }
  int64_t count() const;     // product of the dimensions; 1 for rank 0
  std::string text() const;  // "[2, 3]"
  friend bool operator==(const Shape& a, const Shape& b);
};

/// Read-only, non-owning, trivially copyable. Innermost dimension contiguous, outer strides free (in elements).
struct ConstView {
  const void* data = nullptr;
  Shape shape;
  std::array<int64_t, 4> strides{};
  DType dtype = DType::f32;
  Device device;

  ConstView() = default;
  ConstView(const void* data, Shape shape, DType dtype, Device device = {});  // contiguous
  /// The host's numbers, flat.
  template <HostNumbers Range>
  ConstView(const Range& numbers)
      : ConstView(std::ranges::data(numbers), {static_cast<int64_t>(std::ranges::size(numbers))},
                  DTypeOf<std::ranges::range_value_t<Range>>::value) {}

  bool empty() const { return data == nullptr; }
  int64_t rows() const { return shape.rank == 2 ? shape[0] : shape.count() / shape[shape.rank - 1]; }
  int64_t cols() const { return shape[shape.rank - 1]; }
  int64_t row_stride() const { return shape.rank >= 2 ? strides[shape.rank - 2] : shape.count(); }
  bool is_contiguous() const;
  int64_t bytes() const { return shape.count() * size_of(dtype); }
  ConstView slice_rows(int64_t begin, int64_t end) const;  // along the first dimension
  ConstView slice_cols(int64_t begin, int64_t end) const;  // along the last dimension of a rank-2 view
  ConstView reshape(Shape) const;                          // contiguous only

  /// The elements as a flat span on the host; checks device, dtype and contiguity.
  template <class T> std::span<const T> as() const {
    check_flat(DTypeOf<T>::value);
    return {static_cast<const T*>(data), static_cast<size_t>(shape.count())};
  }
  /// Start of row `i` of a view read as [rows(), cols()] (outer dimensions must be dense above the row stride).
  template <class T> const T* row(int64_t i) const { return static_cast<const T*>(data) + i * row_stride(); }

 private:
  void check_flat(DType wanted) const;
};

/// The writable twin; converts to ConstView.
struct TensorView : ConstView {
  TensorView() = default;
  TensorView(void* data, Shape shape, DType dtype, Device device = {}) : ConstView(data, shape, dtype, device) {}
  explicit TensorView(const ConstView& view) : ConstView(view) {}  // for views cut from a writable one only
  template <HostNumbers Range>
  requires(!std::is_const_v<std::remove_reference_t<std::ranges::range_reference_t<Range&>>>)
      TensorView(Range&& numbers)
      : ConstView(numbers) {}

  void* mutable_data() const { return const_cast<void*>(data); }
  TensorView slice_rows(int64_t begin, int64_t end) const { return TensorView(ConstView::slice_rows(begin, end)); }
  TensorView slice_cols(int64_t begin, int64_t end) const { return TensorView(ConstView::slice_cols(begin, end)); }
  TensorView reshape(Shape s) const { return TensorView(ConstView::reshape(s)); }
  template <class T> std::span<T> as() const {
    const auto flat = ConstView::as<T>();
    return {const_cast<T*>(flat.data()), flat.size()};
  }
  template <class T> T* row(int64_t i) const { return const_cast<T*>(ConstView::row<T>(i)); }
};

/// @throws InternalError unless the shape has so many elements
void check_count(size_t values, const Shape&);

template <class T> TensorView view_of(std::span<T> values, Shape shape) {
  check_count(values.size(), shape);
  return TensorView(const_cast<std::remove_const_t<T>*>(values.data()), shape, DTypeOf<std::remove_const_t<T>>::value);
}

/// Owns zero-initialised, 64-byte aligned memory of a device and yields views. Move-only.
class Tensor {
 public:
  Tensor() = default;
  Tensor(Shape shape, DType dtype, Device device = {});
  TensorView view() const { return TensorView(data_.get(), shape_, dtype_, data_.get_deleter().device); }
  operator TensorView() const { return view(); }
  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  template <class T> std::span<T> as() const { return view().as<T>(); }

 private:
  struct Free {
    Device device;
    void operator()(std::byte*) const;
  };
  Shape shape_;
  DType dtype_ = DType::f32;
  std::unique_ptr<std::byte[], Free> data_;
};

/// Reads element `i` of contiguous storage of any floating dtype, on the host.
double element(const ConstView&, int64_t i);
/// Writes element i, rounded to the view's floating dtype.
void set_element(const TensorView&, int64_t i, double value);

}  // namespace tessera

#include "core/device/memory.h"

#include <atomic>

#include "core/error.h"

namespace tessera {
namespace {

constexpr Device kHost{};

std::atomic<int64_t> uploads, uploaded_bytes, downloads, downloaded_bytes;

/// Rows that lie in one piece: as few and as long as the two layouts allow.
struct Pieces {
  int64_t count, bytes;
};
Pieces pieces_of(const ConstView& a, const ConstView& b) {
  if (a.is_contiguous() && b.is_contiguous()) return {1, a.bytes()};
  return {a.rows(), a.cols() * size_of(a.dtype)};
}

template <class View> auto* piece(const View& view, int64_t i) {
  using Byte = std::conditional_t<std::is_same_v<View, TensorView>, std::byte, const std::byte>;
  return static_cast<Byte*>(const_cast<void*>(view.data)) + i * view.row_stride() * size_of(view.dtype);
}

void copy_piece(Device from_device, const std::byte* from, Device to_device, std::byte* to, int64_t bytes) {
  if (from_device == to_device) return memory_of(to_device).copy(to, from, bytes);
  if (from_device == kHost) {
    ++uploads;
    uploaded_bytes += bytes;
    return memory_of(to_device).upload(to, from, bytes);
  }
  TS_CHECK(to_device == kHost, "a copy between two devices that are not the host");
  ++downloads;
  downloaded_bytes += bytes;
  memory_of(from_device).download(to, from, bytes);
}

}  // namespace

DeviceMemory& memory_of(Device device) {
  for (const DeviceKind& kind : device_kinds())
    if (kind.kind == device.kind) return kind.memory();
  throw UserError("", "this program was built without CUDA",
                  "set run.device = \"cpu\", or configure with a CUDA toolkit");
}

const std::vector<DeviceKind>& device_kinds() {
  static const std::vector<DeviceKind> kinds = {
      {Device::Kind::cpu, "cpu", "", cpu_memory},
      {Device::Kind::far, "far", "the cpu behind memory that the rest of the program cannot read, for tests",
       far_memory},
  };
  return kinds;
}

Transfers transfers() { return {uploads, uploaded_bytes, downloads, downloaded_bytes}; }

void zero(const TensorView& view) {
  const Pieces pieces = pieces_of(view, view);
  for (int64_t i = 0; i < pieces.count && pieces.bytes > 0; ++i)
    memory_of(view.device).zero(piece(view, i), pieces.bytes);
}

void copy(const ConstView& from, const TensorView& to) {
  TS_CHECK(from.shape == to.shape && from.dtype == to.dtype, "a copy of {} {} into {} {}", from.shape.text(),
           name_of(from.dtype), to.shape.text(), name_of(to.dtype));
  const Pieces pieces = pieces_of(from, to);
  for (int64_t i = 0; i < pieces.count && pieces.bytes > 0; ++i)
    copy_piece(from.device, piece(from, i), to.device, piece(to, i), pieces.bytes);
}

Tensor download(const ConstView& view) {
  Tensor host(view.shape, view.dtype);
  copy(view, host);
  return host;
}

Tensor upload(const ConstView& view, Device device) {
  Tensor there(view.shape, view.dtype, device);
  copy(view, there);
  return there;
}

OnHost::OnHost(const ConstView& view) : view_(view) {
  if (view.device == kHost || view.empty()) return;
  copy_ = download(view);
  view_ = copy_.view();
}

WrittenOnHost::WrittenOnHost(const TensorView& view) : device_(view), host_(view) {
  if (view.device == kHost || view.empty()) return;
  buffer_ = Tensor(view.shape, view.dtype);
  host_ = buffer_.view();
}

WrittenOnHost::~WrittenOnHost() {
  if (host_.device != device_.device) copy(host_, device_);
}

EditedOnHost::EditedOnHost(const TensorView& there) : WrittenOnHost(there) {
  if (view().device != there.device) copy(there, view());
}

}  // namespace tessera

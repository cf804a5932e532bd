#pragma once
// Index arrays of one step on their way to the device that its ops run on.

#include "core/device/memory.h"
#include "core/index_array.h"
#include "kernels/context.h"

namespace tessera {

/// The array where the context's kernels read it: itself on the CPU, else a copy in the context's scratch.
/// The host's array outlives it.
template <class T> IndexArray<T> upload(const Context& ctx, std::span<const T> host) {
  if (ctx.device == Device{} || host.empty()) return host;
  const auto bytes = static_cast<int64_t>(host.size() * sizeof(T));
  const TensorView there = ctx.scratch.allocate({bytes}, DType::u8);
  if (!ctx.scratch.is_counting()) copy(ConstView(host.data(), {bytes}, DType::u8), there);
  return {host, static_cast<const T*>(there.data), ctx.device};
}
template <class T> IndexArray<T> upload(const Context& ctx, const std::vector<T>& host) {
  return upload(ctx, std::span<const T>(host));
}

}  // namespace tessera

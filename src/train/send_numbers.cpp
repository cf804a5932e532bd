#include "train/send_numbers.h"

#include <algorithm>
#include <cstring>

#include "core/device/memory.h"
#include "core/error.h"

namespace tessera {
namespace {

/// Calls f(run) for runs of at most 64 MB: the copy that is sent must not be as large as the model.
template <class Byte, class F> void for_each_run(std::span<Byte> bytes, F&& f) {
  constexpr size_t kTogether = size_t{1} << 26;
  for (size_t begin = 0; begin < bytes.size(); begin += kTogether)
    f(bytes.subspan(begin, std::min(kTogether, bytes.size() - begin)));
}

}  // namespace

void send_numbers(Communicator& world, const TensorView& view, int root) {
  const auto count = static_cast<size_t>(view.bytes());
  std::vector<std::byte> bytes;
  if (world.rank() == root) {
    const OnHost host(view);
    for_each_run(std::span(static_cast<const std::byte*>(host.view().data), count),
                 [&](std::span<const std::byte> run) {
                   bytes.assign(run.begin(), run.end());
                   world.broadcast(bytes, root);
                 });
    return;
  }
  const WrittenOnHost host(view);
  for_each_run(std::span(static_cast<std::byte*>(host.view().mutable_data()), count), [&](std::span<std::byte> run) {
    world.broadcast(bytes, root);
    TS_CHECK(bytes.size() == run.size(), "{} bytes came for {}", bytes.size(), run.size());
    std::memcpy(run.data(), bytes.data(), bytes.size());
  });
}

}  // namespace tessera

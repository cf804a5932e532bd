#include "train/send_numbers.h"

#include <algorithm>
#include <cstring>

#include "core/device/memory.h"
#include "core/error.h"

namespace tessera {
namespace {

/// Calls f(run) for runs of at most 64 MB: the copy that is sent must not be as large as the model.
template <class Number, class F> void for_each_run(std::span<Number> numbers, F&& f) {
  constexpr size_t kTogether = size_t{1} << 24;
  for (size_t begin = 0; begin < numbers.size(); begin += kTogether)
    f(numbers.subspan(begin, std::min(kTogether, numbers.size() - begin)));
}

}  // namespace

void send_numbers(Communicator& world, const TensorView& view) {
  std::vector<std::byte> bytes;
  if (world.rank() == 0) {
    const OnHost host(view);
    for_each_run(host.as<float>(), [&](std::span<const float> run) {
      const auto sent = std::as_bytes(run);
      bytes.assign(sent.begin(), sent.end());
      world.broadcast(bytes, 0);
    });
    return;
  }
  const WrittenOnHost host(view);
  for_each_run(host.as<float>(), [&](std::span<float> run) {
    world.broadcast(bytes, 0);
    TS_CHECK(bytes.size() == run.size_bytes(), "{} bytes came for {} numbers", bytes.size(), run.size());
    std::memcpy(run.data(), bytes.data(), bytes.size());
  });
}

}  // namespace tessera

#pragma once
// How many adapters the requests that are computed together have.

#include <cstdint>
#include <map>

namespace tessera {

/// Each adapter of a step reads its own matrices and takes products of its own: a step of few adapters is faster than
/// one of many. Requests without an adapter, number 0, are not counted.
class AdapterLimit {
 public:
  explicit AdapterLimit(int64_t most) : most_(most) {}

  /// Whether a request of this adapter may begin: others of it are computed, or there are fewer than `most` adapters.
  bool has_room_for(int32_t adapter) const {
    return adapter == 0 || requests_.contains(adapter) || static_cast<int64_t>(requests_.size()) < most_;
  }
  void begin(int32_t request, int32_t adapter) {
    if (adapter == 0 || !adapter_of_.emplace(request, adapter).second) return;
    ++requests_[adapter];
  }
  /// The request has ended or waits again; one that has not begun is left alone.
  void end(int32_t request) {
    const auto found = adapter_of_.find(request);
    if (found == adapter_of_.end()) return;
    const auto count = requests_.find(found->second);
    if (--count->second == 0) requests_.erase(count);
    adapter_of_.erase(found);
  }

 private:
  int64_t most_;
  std::map<int32_t, int32_t> adapter_of_{};  // of each request that has begun
  std::map<int32_t, int64_t> requests_{};    // that have begun, of each adapter; none has 0
};

}  // namespace tessera

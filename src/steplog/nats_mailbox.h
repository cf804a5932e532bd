#pragma once
// Where the library's threads put what arrives, until the engine's own thread takes it. They share nothing else.

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>
#include <vector>

#include "steplog/nats_connection.h"

namespace tessera {

struct NatsArrival {
  enum class From { log, join, vote, have } from;
  int64_t subscription;
  NatsMessage message;
  std::chrono::steady_clock::time_point came;
};

class NatsMailbox {
 public:
  void put(NatsArrival::From from, int64_t subscription, NatsMessage message) {
    const std::lock_guard lock(mutex_);
    arrivals_.push_back({from, subscription, std::move(message), std::chrono::steady_clock::now()});
    news_.notify_one();
  }
  /// The connection has changed.
  void ring() {
    const std::lock_guard lock(mutex_);
    rung_ = true;
    news_.notify_one();
  }
  std::vector<NatsArrival> take() {
    const std::lock_guard lock(mutex_);
    rung_ = false;
    return std::exchange(arrivals_, {});
  }
  void wait_until(std::chrono::steady_clock::time_point end) {
    std::unique_lock lock(mutex_);
    news_.wait_until(lock, end, [&] { return rung_ || !arrivals_.empty(); });
  }

 private:
  std::mutex mutex_;
  std::condition_variable news_;
  std::vector<NatsArrival> arrivals_;
  bool rung_ = false;
};

}  // namespace tessera

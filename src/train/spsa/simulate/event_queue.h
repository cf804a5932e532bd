#pragma once
// What happens next in a simulation. Time goes from event to event; one thread, so that what a run does is a function
// of what was put in.

#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

namespace tessera {

/// Nanoseconds since the beginning of a simulation.
using SimTime = int64_t;
constexpr SimTime kSimSecond = 1'000'000'000;
inline SimTime sim_time(double seconds) { return std::llround(seconds * 1e9); }
inline double seconds_of(SimTime time) { return static_cast<double>(time) * 1e-9; }

class EventQueue {
 public:
  /// In the order in which events of one node at one time happen.
  enum class Kind : uint8_t { goes, at_server, comes, record, measured, wakes };

  /// Of events at the same time the node with the lower number comes first, then the kind, then who was added first.
  /// @param at  not before now()
  void add(SimTime at, uint32_t node, Kind, std::function<void()>);
  /// Goes on to the next event's time, and has it happen. @return false when there is none
  bool run_next();

  SimTime now() const { return now_; }
  size_t size() const { return heap_.size(); }

 private:
  struct Event {
    SimTime at;
    uint32_t node;
    Kind kind;
    uint64_t number;
    std::function<void()> what;
  };
  static bool is_later(const Event& a, const Event& b);

  std::vector<Event> heap_;  // the next one first
  uint64_t added_ = 0;
  SimTime now_ = 0;
};

}  // namespace tessera

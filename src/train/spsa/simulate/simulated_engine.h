#pragma once
// A whole node's connection to the simulated server: the five calls of an engine, answered at simulated times.

#include <deque>
#include <queue>

#include "train/spsa/simulate/star.h"

namespace tessera {

/// append() sends the record and says `unknown`; what became of it is told by the next append() for that place behind
/// the answer's arrival, which then sends nothing. Whoever has an answer asks for it before it reads on (hold_back).
class SimulatedEngine final : public LogEngine, public Star::Node {
 public:
  /// @param wake  called with a time at which there is something to take
  SimulatedEngine(Star& star, const EventQueue& queue, uint32_t place, std::function<void(SimTime)> wake)
      : star_(star), queue_(queue), place_(place), wake_(std::move(wake)) {}

  /// What was there when the node came has come to it at `at`.
  void begin(uint64_t records, size_t controls, SimTime at);

  void publish_vote(std::span<const std::byte>) override;
  std::vector<Bytes> take_votes() override;
  std::vector<Sent> take_sent_votes() override;
  void publish_control(std::span<const std::byte>) override;
  std::vector<Sent> take_controls() override;
  Append append(uint64_t expected, std::span<const std::byte> record) override;
  /// One record a call, so that the weights can be looked at behind each.
  std::vector<Bytes> read(uint64_t from) override;
  void wait(std::chrono::milliseconds) override {}  // time goes on in the queue alone
  LogState log_state() override;

  /// What became of the last record has come and was not told yet.
  bool has_answer() const { return answer_ && answer_->what && answer_->at <= queue_.now(); }
  /// Until false is given, the log ends in front of the place that the answer is about.
  void hold_back(bool records) { holds_back_ = records; }
  /// A record is on its way, or its answer: the node waits for it and does nothing else.
  bool is_appending() const;
  /// When there is something to take that is not there yet.
  std::optional<SimTime> next_arrival() const;

  void record_comes(uint64_t index, SimTime at) override;
  void vote_comes(const Star::Message&, SimTime at) override;
  void control_comes(const Star::Message&, SimTime at) override;
  void answer_comes(uint64_t index, Append, SimTime at) override;

 private:
  struct Arriving {
    SimTime at;
    uint64_t number;
    Star::Message message;
    bool operator>(const Arriving& other) const { return std::tie(at, number) > std::tie(other.at, other.number); }
  };
  struct Answer {
    uint64_t index;
    std::optional<Append> what;  // nothing yet: still on its way
    SimTime at;
  };
  uint64_t records_there() const;

  Star& star_;
  const EventQueue& queue_;
  uint32_t place_;
  std::function<void(SimTime)> wake_;
  std::priority_queue<Arriving, std::vector<Arriving>, std::greater<>> votes_;  // jitter lets them pass each other
  std::deque<std::pair<SimTime, Star::Message>> controls_;
  mutable std::deque<SimTime> records_;  // when those come that are not there yet, ascending
  mutable uint64_t there_ = 0;           // records that have come
  std::optional<Answer> answer_;
  uint64_t taken_ = 0;
  bool holds_back_ = false;
};

}  // namespace tessera

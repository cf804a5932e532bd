#include "train/spsa/simulate/simulated_engine.h"

#include <algorithm>

#include "core/error.h"

namespace tessera {

void SimulatedEngine::begin(uint64_t records, size_t controls, SimTime at) {
  records_.insert(records_.begin(), records, at);
  for (size_t k = controls; k > 0; --k) controls_.emplace_front(at, star_.controls()[k - 1]);
}

void SimulatedEngine::publish_vote(std::span<const std::byte> vote) {
  star_.send_vote(place_, vote);
  traffic_.up += std::ssize(vote);
}

std::vector<Bytes> SimulatedEngine::take_votes() {
  std::vector<Bytes> votes;
  for (Sent& sent : take_sent_votes()) votes.push_back(std::move(sent.bytes));
  return votes;
}

std::vector<LogEngine::Sent> SimulatedEngine::take_sent_votes() {
  std::vector<Sent> votes;
  for (; !votes_.empty() && votes_.top().at <= queue_.now(); votes_.pop()) {
    votes.push_back(*votes_.top().message);
    traffic_.down += std::ssize(votes.back().bytes);
  }
  return votes;
}

void SimulatedEngine::publish_control(std::span<const std::byte> message) { star_.send_control(place_, message); }

std::vector<LogEngine::Sent> SimulatedEngine::take_controls() {
  std::vector<Sent> messages;
  for (; !controls_.empty() && controls_.front().first <= queue_.now(); controls_.pop_front())
    messages.push_back(*controls_.front().second);
  return messages;
}

LogEngine::Append SimulatedEngine::append(uint64_t expected, std::span<const std::byte> record) {
  if (is_appending()) return Append::unknown;
  if (answer_) {
    const Answer answer = *answer_;
    answer_.reset();
    if (answer.index == expected) return *answer.what;
  }
  answer_ = Answer{expected, std::nullopt, 0};
  star_.append(place_, expected, record);
  traffic_.up += std::ssize(record);
  return Append::unknown;
}

bool SimulatedEngine::is_appending() const { return answer_ && (!answer_->what || answer_->at > queue_.now()); }

uint64_t SimulatedEngine::records_there() const {
  for (; !records_.empty() && records_.front() <= queue_.now(); records_.pop_front()) ++there_;
  return holds_back_ && answer_ ? std::min(there_, answer_->index) : there_;
}

std::vector<Bytes> SimulatedEngine::read(uint64_t from) {
  if (from >= records_there()) return {};
  const Bytes& record = star_.records()[from];
  traffic_.down += std::ssize(record);
  return {record};
}

LogEngine::LogState SimulatedEngine::log_state() {
  LogState state;
  state.records = records_there();
  return state;
}

std::optional<SimTime> SimulatedEngine::next_arrival() const {
  std::optional<SimTime> next;
  const auto take = [&](SimTime at) {
    if (at > queue_.now() && (!next || at < *next)) next = at;
  };
  if (!votes_.empty()) take(votes_.top().at);
  if (!controls_.empty()) take(controls_.front().first);
  if (!records_.empty()) take(records_.front());
  if (answer_ && answer_->what) take(answer_->at);
  return next;
}

void SimulatedEngine::record_comes(uint64_t, SimTime at) {
  records_.push_back(at);
  wake_(at);
}

void SimulatedEngine::vote_comes(const Star::Message& message, SimTime at) {
  votes_.push({at, taken_++, message});
  wake_(at);
}

void SimulatedEngine::control_comes(const Star::Message& message, SimTime at) {
  controls_.emplace_back(at, message);
  wake_(at);
}

void SimulatedEngine::answer_comes(uint64_t index, Append what, SimTime at) {
  answer_ = Answer{index, what, at};
  wake_(at);
}

}  // namespace tessera

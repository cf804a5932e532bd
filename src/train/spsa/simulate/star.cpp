#include "train/spsa/simulate/star.h"

#include <algorithm>

#include "core/error.h"
#include "train/spsa/simulate/sim_draws.h"

namespace tessera {
namespace {

Star::Message message_of(const std::string& node, std::span<const std::byte> bytes) {
  return std::make_shared<const LogEngine::Sent>(LogEngine::Sent{node, {bytes.begin(), bytes.end()}});
}

constexpr int64_t kAnswerBytes = 30;  // of an append's answer

}  // namespace

Star::Star(EventQueue& queue, const LinkTerms& terms, uint64_t seed, int64_t nodes)
    : queue_(queue), terms_(terms), seed_(seed), ends_(static_cast<size_t>(nodes)) {}

SimTime Star::connect(uint32_t place, uint64_t life, Node& node, std::string name, bool may_pack) {
  const auto key = [&](SimDraw purpose) { return sim_key(seed_, place, purpose, life); };
  ends_[place] = std::unique_ptr<End>(new End{.life = life,
                                              .node = node,
                                              .name = std::move(name),
                                              .may_pack = may_pack,
                                              .hears_votes = false,
                                              .up = SimLink(terms_, key(SimDraw::up)),
                                              .down = SimLink(terms_, key(SimDraw::down))});
  if (may_pack) packers_.insert(std::ranges::lower_bound(packers_, place), place);
  const int64_t bytes = record_bytes_ + (may_pack ? control_bytes_ : 0);
  down_ += bytes;
  return bytes == 0 ? queue_.now() : ends_[place]->down.send_safely(queue_.now(), bytes);
}

void Star::disconnect(uint32_t place) {
  ends_[place].reset();
  std::erase(packers_, place);
}

template <class Use> void Star::for_each_packer(Use&& use) {
  for (const uint32_t place : packers_) use(*ends_[place]);
}

void Star::send_vote(uint32_t place, std::span<const std::byte> bytes) {
  End& end = *ends_[place];
  const int64_t size = std::ssize(bytes) + kBytesAroundUp;
  up_ += size;
  const auto at = end.up.send(queue_.now(), size);
  if (!at) return;
  queue_.add(*at, place, EventQueue::Kind::at_server,
             [this, message = message_of(end.name, bytes)] { pass_on_vote(message); });
}

void Star::pass_on_vote(const Message& vote) {
  const int64_t size = std::ssize(vote->bytes) + kBytesAroundDown;
  for_each_packer([&](End& end) {
    if (!end.hears_votes) return;
    down_ += size;
    if (const auto at = end.down.send(queue_.now(), size)) end.node.vote_comes(vote, *at);
  });
}

void Star::send_control(uint32_t place, std::span<const std::byte> bytes) {
  End& end = *ends_[place];
  const int64_t size = std::ssize(bytes) + kBytesAroundUp;
  up_ += size;
  queue_.add(end.up.send_safely(queue_.now(), size), place, EventQueue::Kind::at_server,
             [this, message = message_of(end.name, bytes)] { keep_control(message); });
}

void Star::keep_control(const Message& message) {
  const int64_t size = std::ssize(message->bytes) + kBytesAroundDown;
  controls_.push_back(message);
  control_bytes_ += size;
  for_each_packer([&](End& end) {
    down_ += size;
    end.node.control_comes(message, end.down.send_safely(queue_.now(), size));
  });
}

void Star::append(uint32_t place, uint64_t expected, std::span<const std::byte> record) {
  End& end = *ends_[place];
  TS_CHECK(end.may_pack, "place {} may not write records", place);
  const int64_t size = std::ssize(record) + kBytesAroundUp;
  up_ += size;
  queue_.add(end.up.send_safely(queue_.now(), size), place, EventQueue::Kind::at_server,
             [this, place, life = end.life, expected, bytes = Bytes(record.begin(), record.end())] {
               decide(place, life, expected, bytes);
             });
}

void Star::decide(uint32_t place, uint64_t life, uint64_t expected, Bytes record) {
  const bool is_won = expected == records_.size();
  conflicts_ += !is_won;
  if (End* end = ends_[place].get(); end && end->life == life) {
    down_ += kAnswerBytes + kBytesAroundDown;
    end->node.answer_comes(expected, is_won ? LogEngine::Append::won : LogEngine::Append::conflict,
                           end->down.send_safely(queue_.now(), kAnswerBytes + kBytesAroundDown));
  }
  if (is_won) publish(std::move(record));
}

void Star::publish(Bytes record) {
  const uint64_t index = records_.size();
  const int64_t size = std::ssize(record) + kBytesAroundDown;
  records_.push_back(std::move(record));
  record_bytes_ += size;
  if (taken) taken(index, records_.back());
  for (const auto& end : ends_) {
    if (!end) continue;
    down_ += size;
    end->node.record_comes(index, end->down.send_safely(queue_.now(), size));
  }
}

}  // namespace tessera

#pragma once
// The server of a simulation, with a link to each node: one ordered log with compare-and-set, votes that are passed on
// and may be lost, control messages that are kept. What LogEngine asks of a server (docs/nats.md), and no bytes on a
// network.

#include <memory>

#include "steplog/log_engine.h"
#include "train/spsa/simulate/sim_link.h"

namespace tessera {

/// Bytes that a message takes on a link beyond its own: those of frame, TCP and NATS, as measured (docs/benchmarks.md).
constexpr int64_t kBytesAroundUp = 86, kBytesAroundDown = 78;

class Star {
 public:
  using Message = std::shared_ptr<const LogEngine::Sent>;
  /// A node as the server knows it. Told of what is on its way to it: `at` is when it is there.
  class Node {
   public:
    virtual ~Node() = default;
    virtual void record_comes(uint64_t index, SimTime at) = 0;
    /// Only who may pack is told of votes and control messages, and of what became of its records.
    virtual void vote_comes(const Message&, SimTime) {}
    virtual void control_comes(const Message&, SimTime) {}
    virtual void answer_comes(uint64_t, LogEngine::Append, SimTime) {}
  };

  Star(EventQueue& queue, const LinkTerms& terms, uint64_t seed, int64_t nodes);

  /// A node in that place takes part from now on. @param life  which one in that place, for its draws
  /// @return when the records and, of one that may pack, the control messages that are there already have come to it;
  ///   what is new meanwhile comes behind them
  SimTime connect(uint32_t place, uint64_t life, Node&, std::string name, bool may_pack);
  /// Nothing reaches it any more. What it has sent goes on.
  void disconnect(uint32_t place);
  /// From now on the votes are passed on to it.
  void hear_votes(uint32_t place) { ends_[place]->hears_votes = true; }

  void send_vote(uint32_t place, std::span<const std::byte>);
  void send_control(uint32_t place, std::span<const std::byte>);
  /// The record becomes number `expected`, unless another has that place when it is there; the node is answered.
  void append(uint32_t place, uint64_t expected, std::span<const std::byte>);

  const std::vector<Bytes>& records() const { return records_; }
  const std::vector<Message>& controls() const { return controls_; }
  int64_t conflicts() const { return conflicts_; }
  int64_t bytes_up() const { return up_; }      // sent to the server
  int64_t bytes_down() const { return down_; }  // sent by it
  /// Called with each record that has got its place, before it is passed on.
  std::function<void(uint64_t index, const Bytes&)> taken;

 private:
  struct End {
    uint64_t life;
    Node& node;
    std::string name;
    bool may_pack, hears_votes;
    SimLink up, down;
  };
  void pass_on_vote(const Message&);
  void keep_control(const Message&);
  void decide(uint32_t place, uint64_t life, uint64_t expected, Bytes);
  void publish(Bytes);
  template <class Use> void for_each_packer(Use&&);

  EventQueue& queue_;
  LinkTerms terms_;
  uint64_t seed_;
  std::vector<std::unique_ptr<End>> ends_;  // by place
  std::vector<uint32_t> packers_;           // places of those that may pack, ascending
  std::vector<Bytes> records_;
  std::vector<Message> controls_;
  int64_t conflicts_ = 0, up_ = 0, down_ = 0, record_bytes_ = 0, control_bytes_ = 0;
};

}  // namespace tessera

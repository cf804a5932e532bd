// A node that votes and packs nothing, as a few numbers: its weights are those of all whose logs are as long.

#include "core/error.h"
#include "train/spsa/simulate/sim_world.h"

namespace tessera {
namespace {

class LightNode final : public SimNode, public Star::Node {
 public:
  LightNode(SimWorld& world, uint32_t place, uint64_t life) : SimNode(world, place, life) {
    records_ = world.star.records().size();
    const SimTime there = world.star.connect(place, life, *this, name(), false);
    const uint32_t rounds = world.shared.rounds_behind(records_);
    later(there + world.shared.time_to_apply(0, rounds), EventQueue::Kind::comes, [this] {
      has_come_ = true;
      round_ = world_.shared.rounds_behind(records_);  // with those that came meanwhile
      go_on();
    });
  }

  void record_comes(uint64_t index, SimTime at) override {
    later(at, EventQueue::Kind::record, [this, index] {
      records_ = index + 1;
      if (has_come_ && !is_busy_) go_on();
    });
  }

  void leave() override {
    if (has_number_)
      world_.star.send_control(place_,
                               encode(RosterRequest{RosterRequest::Kind::leave, world_.run.prefix(), machine_}));
  }

 private:
  struct Found {
    uint32_t round, machine;
    Measured measured;
    uint8_t lag;
    std::optional<StateDigest> digest;
  };

  /// Applies what has come, and then votes in the round that is due.
  void go_on() {
    const uint32_t newest = world_.shared.rounds_behind(records_);
    if (newest > round_) {
      const SimTime takes = world_.shared.time_to_apply(round_, newest);
      round_ = newest;
      if (takes > 0) return be_busy(takes, EventQueue::Kind::wakes, [this] { go_on(); });
    }
    if (round_ == world_.rounds()) return;
    ask_for_lane();
    const auto lane = world_.shared.lane_of(machine_, round_);
    if (!has_number_ || !lane || int64_t{round_} <= last_voted_) return;
    if (found_ && found_->round == round_ && found_->machine == machine_) return send(*lane);
    measure(round_, *lane);
  }

  void ask_for_lane() {
    if (has_number_) {
      const auto* stay = world_.shared.stay_of(machine_);
      if (!stay || stay->left >= round_) return;  // not answered yet, or it has its lane
    }
    machine_ = world_.draw_number(number_key() + ++numbers_);
    has_number_ = true;
    last_voted_ = -1;
    world_.star.send_control(place_, encode(RosterRequest{RosterRequest::Kind::join, world_.run.prefix(), machine_}));
  }

  void measure(uint32_t round, uint32_t lane) {
    const SharedReplica::State* state = world_.shared.behind(round_);
    if (!state) return;  // too far behind: it catches up first
    const int unit = round == round_ ? state->unit : state->next_unit;
    const auto lag = static_cast<uint8_t>(round - round_);
    found_ = Found{round, machine_, world_.in.losses.measure(state->values.view(), round, unit, machine_, lane), lag,
                   std::nullopt};
    if (lag == 0 && world_.digest_due(round)) found_->digest = state->digest;
    be_busy(world_.time_to_measure(), EventQueue::Kind::measured, [this, lane, round] {
      if (round == round_)
        send(lane);
      else
        go_on();
    });
  }

  void send(uint32_t lane) {
    const uint32_t round = found_->round;
    Vote vote = world_.vote_of(place_, machine_, round, found_->lag, found_->measured);
    if (found_->digest) vote.digest = {found_->digest->sum, found_->digest->check};
    world_.star.send_vote(place_, encode(vote));
    note_vote();
    last_voted_ = round;
    found_.reset();
    if (world_.measures_ahead(round)) return measure(round + 1, lane);
    go_on();
  }

  void be_busy(SimTime time, EventQueue::Kind kind, std::function<void()> then) {
    is_busy_ = true;
    later(world_.queue.now() + time, kind, [this, then = std::move(then)] {
      is_busy_ = false;
      then();
    });
  }

  uint64_t records_ = 0, numbers_ = 0;
  uint32_t round_ = 0, machine_ = 0;
  int64_t last_voted_ = -1;
  bool has_come_ = false, has_number_ = false, is_busy_ = false;
  std::optional<Found> found_;
};

}  // namespace

std::unique_ptr<SimNode> make_light_node(SimWorld& world, uint32_t place, uint64_t life) {
  return std::make_unique<LightNode>(world, place, life);
}

}  // namespace tessera

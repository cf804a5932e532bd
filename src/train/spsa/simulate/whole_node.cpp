// A node as it is: the real LooseNode and LoosePacker with a log of their own, driven by events as LooseStepper is by
// time.

#include <limits>

#include "core/error.h"
#include "io/files.h"
#include "train/spsa/loose/loose_packer.h"
#include "train/spsa/simulate/sim_world.h"
#include "train/spsa/simulate/simulated_engine.h"

namespace tessera {
namespace {

constexpr SimTime kLongestWait = kSimSecond / 20;  // that LooseNode::wait() waits

class WholeNode final : public SimNode {
 public:
  WholeNode(SimWorld& world, uint32_t place, uint64_t life)
      : SimNode(world, place, life),
        // A node takes some microseconds for each vote: it looks again when about so many have come.
        pause_(std::max(kSimSecond / 1000, world.in.config.nodes.value_or(1) * kSimSecond / 200'000)),
        folder_(place == 0 ? world.in.folder : world.in.folder / "nodes" / fmt::format("{:05}", place)),
        own_(world.in.start),
        snapshots_(folder_ / "checkpoints", 1, "keep"),
        connection_(
            std::make_unique<SimulatedEngine>(world.star, world.queue, place, [this](SimTime at) { wake(at); })),
        engine_(*connection_) {
    create_folder(folder_);
    // Of the one that was here before.
    for (const char* left : {"log", "checkpoints", "node.json", "nodes.json"})
      std::filesystem::remove_all(folder_ / left);
    const uint64_t records = world.star.records().size();
    const size_t controls = world.star.controls().size();
    const SimTime there = world.star.connect(place, life, engine_, name(), true);
    engine_.begin(records, controls, there);
    const uint32_t rounds = world.shared.rounds_behind(records);
    later(there + world.shared.time_to_apply(0, rounds), EventQueue::Kind::comes, [this] { come(); });
  }
  ~WholeNode() override { world_.star.disconnect(place_); }  // before the engine goes

  bool has_ended() const override { return node_ && (is_broken_ || node_->own().has_ended()); }
  void leave() override {
    if (node_) node_->leave();
  }

 private:
  struct Found {
    uint32_t round, machine;
    Measured measured;
    uint8_t lag;
  };

  void come() {
    name_ = name();
    node_.emplace(LooseNode::Inputs{.ctx = world_.in.ctx,
                                    .header = world_.in.header,
                                    .params = own_.params,
                                    .spsa = world_.in.spsa,
                                    .name = name_,
                                    .run_name = run_name_,
                                    .run = folder_,
                                    .log = folder_ / "log",
                                    .snapshots = snapshots_,
                                    .say = [](const std::string&) {},
                                    .is_asked_to_stop = [] { return false; },
                                    .now = [this] { return time(); },
                                    .draw_number = [this] { return world_.draw_number(number_key() + ++numbers_); }},
                  std::move(connection_));
    packer_.emplace(*node_, world_.in.ctx, world_.in.spsa);
    world_.star.hear_votes(place_);
    node_->join();
    compared_ = node_->replica().round();
    turn();
  }

  RoundClock::Clock::time_point time() const {
    return RoundClock::Clock::time_point(std::chrono::nanoseconds(world_.queue.now()));
  }

  /// What LooseStepper does between two waits.
  void turn() {
    last_turn_ = world_.queue.now();
    next_turn_ = kNever;
    node_->clock().begin(node_->replica().round(), node_->now());
    node_->attend();
    hear_answer();
    // Who offers a record waits for what becomes of it, and does nothing else.
    if (!is_measuring_ && !engine_.is_appending()) read_records();
    if (is_broken_) return;
    if (last_turn_ >= applied_at_ && !engine_.is_appending()) {
      if (node_->replica().round() == world_.rounds())
        finish();
      else
        take_part();
    }
    wake(std::min(last_turn_ + kLongestWait, engine_.next_arrival().value_or(kNever)));
  }

  void take_part() {
    if (!is_measuring_) {
      node_->ask_for_lane();
      vote();
      node_->repeat_vote();
    }
    packer_->pack();
  }

  /// What became of a record is told where it was offered; what the node reads comes behind that.
  void hear_answer() {
    if (!engine_.has_answer() || node_->replica().round() == world_.rounds()) return;
    engine_.hold_back(true);
    packer_->pack();
    engine_.hold_back(false);
  }

  /// One by one, so that weights are compared behind the same rounds everywhere.
  void read_records() {
    const uint32_t before = node_->replica().round();
    for (uint64_t index = node_->own().tip().index;; index = node_->own().tip().index) {
      node_->read_records(world_.rounds());
      if (node_->own().tip().index == index) break;
      const uint32_t round = node_->replica().round();
      node_->clock().begin(round, node_->now());
      if (round == compared_) continue;
      compared_ = round;
      is_broken_ =
          world_.compares_behind(round) && !world_.digests.compare(round, node_->replica().digest(world_.in.ctx));
      if (is_broken_) return;  // the log's own DIGEST would end it
    }
    applied_at_ = world_.queue.now() + world_.shared.time_to_apply(before, node_->replica().round());
  }

  void vote() {
    const uint32_t round = node_->replica().round();
    const auto lane = node_->lane();
    if (!lane || !node_->is_open() || !node_->desk().may_vote(round)) return;
    if (found_ && found_->round == round && found_->machine == node_->desk().machine())
      send(*lane);
    else
      measure(round, *lane);
  }

  void measure(uint32_t round, uint32_t lane) {
    const Replica& replica = node_->replica();
    const uint32_t machine = node_->desk().machine();
    found_ = Found{round, machine,
                   world_.in.losses.measure(own_.params.values, round, replica.recent().unit_of(round), machine, lane),
                   static_cast<uint8_t>(round - replica.round())};
    is_measuring_ = true;
    measures_since_ = world_.queue.now();
    later(measures_since_ + world_.time_to_measure(), EventQueue::Kind::measured, [this, lane] {
      is_measuring_ = false;
      // While it was measured, others may have gone on; the vote is late then, and still of its round.
      if (found_->round == node_->replica().round()) send(lane);
      turn();
    });
  }

  void send(uint32_t lane) {
    Vote vote = world_.vote_of(place_, found_->machine, found_->round, found_->lag, found_->measured);
    if (found_->lag == 0 && world_.digest_due(found_->round)) {
      const StateDigest digest = node_->replica().digest(world_.in.ctx);
      vote.digest = {digest.sum, digest.check};
    }
    if (!node_->publish_vote(vote)) return;
    note_vote();
    const uint32_t round = found_->round;
    found_.reset();
    if (world_.measures_ahead(round)) measure(round + 1, lane);
  }

  /// The END, by whoever writes it first.
  void finish() {
    if (!finishes_since_) finishes_since_ = world_.queue.now();
    const double waited = seconds_of(world_.queue.now() - *finishes_since_);
    if (node_->own().has_ended() || engine_.is_appending() || !node_->may_pack() || !node_->is_level()) return;
    if (waited >= node_->clock().patience(node_->place()).count()) node_->publish(node_->head(RecordType::end));
  }

  /// Takes a turn at `at`, or as soon after it as the node comes to look.
  void wake(SimTime at) {
    if (!node_ || is_broken_) return;  // it catches up, or is no more
    at = std::max({at, last_turn_ + pause_, applied_at_});
    if (is_measuring_) {
      const SimTime probe = std::max<SimTime>(1, world_.time_of_probe());
      at = measures_since_ + (at - measures_since_ + probe - 1) / probe * probe;
      if (at >= measures_since_ + world_.time_to_measure()) return;  // its end is a turn
    }
    if (at >= next_turn_) return;
    next_turn_ = at;
    later(at, EventQueue::Kind::wakes, [this, at] {
      if (next_turn_ == at) turn();
    });
  }

  static constexpr SimTime kNever = std::numeric_limits<SimTime>::max();
  const SimTime pause_;  // between two turns, at least
  std::filesystem::path folder_;
  std::string name_, run_name_ = "simulation";
  OwnWeights own_;
  Snapshots snapshots_;
  std::unique_ptr<SimulatedEngine> connection_;  // until the node has it
  SimulatedEngine& engine_;
  std::optional<LooseNode> node_;  // behind its catching up
  std::optional<LoosePacker> packer_;
  std::optional<Found> found_;
  std::optional<SimTime> finishes_since_;
  SimTime last_turn_ = 0, next_turn_ = kNever, measures_since_ = 0, applied_at_ = 0;
  uint32_t compared_ = 0;  // round whose weights were looked at last
  uint64_t numbers_ = 0;
  bool is_measuring_ = false;
  bool is_broken_ = false;  // its weights are not those of others: it takes part no more
};

}  // namespace

std::unique_ptr<SimNode> make_whole_node(SimWorld& world, uint32_t place, uint64_t life) {
  return std::make_unique<WholeNode>(world, place, life);
}

}  // namespace tessera

#include "train/spsa/simulate/simulation.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/error.h"
#include "core/stop.h"
#include "train/spsa/rounds.h"
#include "train/spsa/simulate/sim_draws.h"

namespace tessera {
namespace {

constexpr SimTime kPatience = 3600 * kSimSecond;  // without a record, beside twenty first deadlines and four probings

class Simulation {
 public:
  Simulation(const SimInputs& in, const std::function<void(const std::string&)>& say)
      : say_(say), world_(in, *in.config.nodes), nodes_(static_cast<size_t>(*in.config.nodes)) {
    report_.nodes = *in.config.nodes;
    report_.loss_first = report_.loss_last = std::nan("");
    world_.star.taken = [this](uint64_t, const Bytes& bytes) { take(bytes); };
  }

  SimReport run() {
    for (uint32_t place = 0; place < nodes_.size(); ++place) bring(place, 0);
    while (!has_ended()) {
      leave_if_asked("simulating");
      if (!world_.queue.run_next() || world_.queue.now() - last_record_ > patience()) throw_standstill();
    }
    return report();
  }

 private:
  void bring(uint32_t place, uint64_t life) {
    nodes_[place].reset();  // before the next one connects
    nodes_[place] =
        world_.is_whole(place) ? make_whole_node(world_, place, life) : make_light_node(world_, place, life);
  }

  bool has_ended() const {
    return is_over_ && std::ranges::all_of(nodes_, [](const auto& node) { return node->has_ended(); });
  }

  SimTime patience() const {
    return kPatience + sim_time(20 * world_.in.spsa.loose.first_deadline) + 4 * world_.time_to_measure();
  }

  [[noreturn]] void throw_standstill() const {
    throw UserError("simulate",
                    fmt::format("no record for {:.0f} simulated seconds behind round {} of {}", seconds_of(patience()),
                                world_.shared.replica().round(), world_.rounds()),
                    "the nodes are too slow or lose too much for spsa.quorum: lower simulate.loss, simulate.churn or "
                    "simulate.forward_seconds, or raise simulate.rate_mbit; nodes whose disk is full are silent, too");
  }

  // --- records

  void take(const Bytes& bytes) {
    const auto decoded = decode_record(bytes);
    const auto* record = std::get_if<Record>(&decoded);
    TS_CHECK(record, "a simulated packer wrote a record that breaks rule \"{}\"", std::get<Refusal>(decoded).rule);
    if (record->type == RecordType::round) count(*record);
    world_.shared.apply(world_.in.ctx, *record);
    report_.reseeds += record->type == RecordType::reseed;
    is_over_ = is_over_ || record->type == RecordType::end;
    if (record->type == RecordType::round) note_round(*record);
    last_record_ = world_.queue.now();
  }

  /// @param record  before it is applied
  void count(const Record& record) {
    const size_t lanes = world_.shared.replica().roster().size();
    report_.votes += votes_in(record, world_.in.header.bytes_per_probe());
    report_.stale_groups += std::ssize(record.extra);
    // A lane that was there and is given has had another machine before.
    for (const RosterChange& change : record.roster) report_.lanes_given_anew += change.add && change.lane < lanes;
  }

  void note_round(const Record& record) {
    if (world_.compares_behind(record.round + 1))
      world_.digests.expect(record.round + 1, world_.shared.replica().digest(world_.in.ctx));
    const double loss = world_.shared.replica().last().loss;
    if (std::isfinite(loss)) {
      if (!std::isfinite(report_.loss_first)) report_.loss_first = loss;
      report_.loss_last = loss;
    }
    const SimTime lasted = world_.queue.now() - last_round_;
    last_round_ = world_.queue.now();
    ++report_.rounds;
    if (record.round + 1 < world_.rounds()) churn(record.round, lasted);
    tell_progress(record.round);
  }

  void tell_progress(uint32_t round) {
    using namespace std::chrono;
    const auto now = steady_clock::now();
    if (!say_ || now - told_ < seconds(10)) return;
    told_ = now;
    say_(fmt::format("round {} of {}, {:.1f} simulated seconds", int64_t{round} + 1, world_.rounds(),
                     seconds_of(world_.queue.now())));
  }

  // --- who comes and goes

  /// Who goes behind this round, at times spread over as long as it lasted.
  void churn(uint32_t round, SimTime lasted) {
    const SimulateConfig& config = world_.in.config;
    if (config.churn == 0) return;
    const auto unit = [&](uint32_t place, SimDraw purpose) {
      return sim_unit(sim_key(static_cast<uint64_t>(config.seed), place, purpose, round));
    };
    for (uint32_t place = 0; place < nodes_.size(); ++place) {
      if (unit(place, SimDraw::churn) >= config.churn) continue;
      const bool leaves = unit(place, SimDraw::kind_of_end) < 0.5;
      const SimTime after = sim_time(seconds_of(lasted) * unit(place, SimDraw::time_of_end));
      world_.queue.add(world_.queue.now() + after, place, EventQueue::Kind::goes,
                       [this, place, leaves, life = nodes_[place]->life()] { replace(place, life, leaves); });
    }
  }

  void replace(uint32_t place, uint64_t life, bool leaves) {
    if (nodes_[place]->life() != life || is_over_) return;  // it went already
    if (leaves) nodes_[place]->leave();
    ++(leaves ? report_.leaves : report_.kills);
    ++report_.joins;
    bring(place, life + 1);
  }

  SimReport report() {
    report_.simulated_seconds = seconds_of(last_round_);
    report_.bytes_up = world_.star.bytes_up();
    report_.bytes_down = world_.star.bytes_down();
    report_.conflicts = world_.star.conflicts();
    std::vector<SimTime>& times = world_.catch_up;
    report_.caught_up = std::ssize(times);
    if (!times.empty()) {
      report_.catch_up_largest = seconds_of(std::ranges::max(times));
      report_.catch_up_median = seconds_of(lower_median(times));
    }
    report_.compared = world_.digests.compared();
    report_.divergence = world_.digests.different();
    report_.digest = world_.shared.replica().digest(world_.in.ctx).text();
    return report_;
  }

  const std::function<void(const std::string&)>& say_;
  SimWorld world_;
  std::vector<std::unique_ptr<SimNode>> nodes_;  // by place
  SimReport report_;
  SimTime last_record_ = 0, last_round_ = 0;
  bool is_over_ = false;
  std::chrono::steady_clock::time_point told_ = std::chrono::steady_clock::now();
};

Json number_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(); }

}  // namespace

Json SimReport::json() const {
  const auto ratio = [](int64_t a, int64_t b) { return b > 0 ? static_cast<double>(a) / static_cast<double>(b) : 0.0; };
  const auto caught = [&](double seconds) { return caught_up > 0 ? Json(seconds) : Json(); };
  return Json::object()
      .set("nodes", nodes)
      .set("rounds", rounds)
      .set("simulated_seconds", simulated_seconds)
      .set("rounds_per_second", simulated_seconds > 0 ? static_cast<double>(rounds) / simulated_seconds : 0.0)
      .set("votes", votes)
      .set("bytes_up", Json::object().set("server", bytes_up).set("node_and_vote", ratio(bytes_up, votes)))
      .set("bytes_down", Json::object()
                             .set("server", bytes_down)
                             .set("node_and_vote", ratio(bytes_down, votes) / static_cast<double>(nodes)))
      .set("joins", joins)
      .set("leaves", leaves)
      .set("kills", kills)
      .set("catch_up_seconds",
           Json::object().set("median", caught(catch_up_median)).set("largest", caught(catch_up_largest)))
      .set("stale_groups", stale_groups)
      .set("lanes_given_anew", lanes_given_anew)
      .set("conflicts", conflicts)
      .set("reseeds", reseeds)
      .set("loss_first", number_or_null(loss_first))
      .set("loss_last", number_or_null(loss_last))
      .set("digests_compared", compared)
      .set("divergence", divergence)
      .set("digest", digest);
}

SimReport simulate(const SimInputs& in, const std::function<void(const std::string&)>& say) {
  return Simulation(in, say).run();
}

}  // namespace tessera

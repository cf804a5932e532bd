// A round of loose nodes:
//
//   measure -> vote -> wait for the record of the round, or pack it -> append to the own log, synced -> apply
//
// Nothing here waits for a machine by name. A record needs a quorum and a deadline; who is late counts in the next one,
// who is silent loses its lane, who comes asks for one. The engine's log orders records and is compared with the own on
// every connection.

#include "train/spsa/loose/loose_stepper.h"

#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/minifloat.h"
#include "train/divergence.h"
#include "train/spsa/branch.h"
#include "train/spsa/divergence.h"
#include "train/spsa/figures.h"
#include "train/spsa/loose/crew.h"
#include "train/spsa/loose/loose_packer.h"
#include "train/spsa/loose/stop_point.h"
#include "train/spsa/privacy/private_voter.h"
#include "train/spsa/restored_run.h"
#include "train/spsa/round_notices.h"
#include "train/spsa/round_report.h"
#include "train/spsa/spsa_inputs.h"
#include "train/spsa/voter.h"

namespace tessera {
namespace {

using Clock = RoundClock::Clock;
using Seconds = RoundClock::Seconds;

class LooseStepper final : public Stepper {
 public:
  LooseStepper(const TrainerInputs& in, const SpsaInputs& spsa, const SpsaConfig& config)
      : in_(in),
        spsa_(spsa),
        config_(config),
        snapshots_(*in.folder / "checkpoints", in.config.checkpoint.keep, config_.compact),
        notices_(in.report, spsa.header.eps),
        node_({.ctx = in.ctx,
               .header = spsa.header,
               .params = in.model.pool().trainable(),
               .spsa = config_,
               .name = spsa.nats.node,
               .run_name = spsa.nats.name,
               .run = in.run_path,
               .log = rank_log_folder(in.run_path, 0),
               .snapshots = snapshots_,
               .say = [this](const std::string& text) { in_.report.say(text); },
               .is_asked_to_stop = [this] { return is_asked_to_stop(); },
               .applied =
                   [this](const Bytes& record) {
                     if (crew_) crew_->note(record);
                   }},
              transport_named(config.transport)
                  .make({.world = in.world,
                         .folder = {},
                         .header_json = spsa.header.text(),
                         .log_size = 0,
                         .nats = spsa.nats})),
        packer_(node_, in.ctx, config_),
        replica_(node_.replica()) {
    if (in.world.size() > 1) crew_.emplace(in.world, replica_);
  }

  std::optional<Restored> restore() override {
    if (spsa_.accepted) spsa_.accepted();  // the engine has taken this run's header
    const bool is_new = node_.is_new();
    node_.join();
    const std::string notice = require_log(snapshots_.folder(), rank_log_folder(in_.run_path, 0), replica_.round());
    if (!notice.empty()) in_.report.say(notice);
    snapshots_.know(log());
    in_.model.assemble(in_.ctx);
    if (replica_.header().terms->privacy) begin_privacy();
    const int64_t machines = std::max<int64_t>(1, node_.lanes_taken());
    if (crew_) crew_->begin(machines);
    if (replica_.round() == 0) return std::nullopt;
    auto run = restored_run(in_, replica_, &log(), {rows_of_machine(), machines});
    run.steps = rounds_in_all();
    if (is_new) run.why_unevaluated = "this machine joins a run that has begun";
    in_.report.say(fmt::format("going on from step {}, rebuilt from the log: {}", replica_.round(),
                               replica_.digest(in_.ctx).text()));
    return run;
  }

  void keep_figures(const CheckpointMeta& meta) override { tessera::keep_figures(in_.folder->path(), meta); }

  std::optional<StepReport> take(int64_t step) override {
    const auto round = static_cast<uint32_t>(step - 1);
    TS_CHECK(replica_.round() == round, "step {} after {} rounds", step, replica_.round());
    const LogEngine::Traffic before = node_.traffic();
    const int halvings = replica_.halvings();
    while (replica_.round() == round) {
      node_.clock().begin(round, Clock::now());
      node_.attend();
      node_.read_records(round + 1);
      if (std::exchange(rebuilt_, node_.rebuilt()) != node_.rebuilt()) in_.model.assemble(in_.ctx);
      if (replica_.round() != round) break;
      refuse_early_end();
      if (is_asked_to_stop()) return leave();
      node_.ask_for_lane();
      vote(round);
      node_.repeat_vote();
      packer_.pack();
      node_.wait();
    }
    in_.model.assemble(in_.ctx);
    refuse_empty_rounds(replica_, in_.model, &log(), step);
    StepReport result = report(step, before, halvings);
    if (crew_) crew().end_step(result);
    return result;
  }

  void checkpoint(const CheckpointMeta& meta, bool is_best) override {
    keep_figures(meta);
    const HashedFile saved = snapshots_.save(replica_, is_best);
    if (config_.compact != "keep") log().new_segment();
    Record record = node_.head(RecordType::snapshot);
    const StateDigest digest = replica_.digest(in_.ctx);
    record.digest = {digest.sum, digest.check};
    if (fault_point("snapshot", record.round)) record.digest[0] ^= 1;
    record.sha256 = saved.sha256;
    record.file_bytes = saved.bytes;
    // The file is the same everywhere: who packed the last round tells of it.
    if (node_.packed_last() && node_.may_pack() && !snapshots_.knows(record.round)) node_.publish_and_read(record);
    snapshots_.compact(log(), snapshots_.remove_old(replica_.round()));
  }

  std::string way_out_of_divergence() const override { return lower_rate_from_start(in_); }

  /// The END, by whoever writes it first; a machine that may not waits a while for it.
  void finish() override {
    const auto start = Clock::now();
    const Seconds patience = std::max(Seconds(5), 4 * node_.clock().deadline());
    const auto waited = [&] { return Seconds(Clock::now() - start); };
    while (!node_.own().has_ended() && waited() < patience) {
      node_.attend();
      node_.read_records(replica_.round());
      const bool is_mine = node_.may_pack() && waited() >= node_.clock().patience(node_.place());
      if (is_mine) node_.publish_and_read(node_.head(RecordType::end));
      if (!node_.own().has_ended()) node_.wait();
    }
    if (!node_.own().has_ended())
      in_.report.say("the log has no END yet: the machine that may write records next writes it");
    const StateDigest digest = replica_.digest(in_.ctx);
    if (crew_) crew().finish(digest);
    in_.report.say(fmt::format("digest {}", digest.text()));
  }

 private:
  StepLog& log() { return node_.own().log(); }
  int64_t rows_of_machine() const { return config_.rows_of_machine(in_.config.train.batch); }
  int64_t rounds_in_all() const { return replica_.header().terms->rounds; }
  bool is_asked_to_stop() const { return in_.stop_requested && in_.stop_requested(); }

  /// Another packer may write what it likes where records are not signed.
  void refuse_early_end() {
    if (!node_.own().has_ended()) return;
    throw UserError(rank_log_folder(in_.run_path, 0).string(),
                    fmt::format("the log has its END behind round {} of {}", replica_.round(), rounds_in_all()),
                    "nothing may follow it: a branch goes on (" + branch_command(config_) + ")");
  }

  std::nullopt_t leave() {
    node_.leave();
    if (crew_) crew().leave();
    return std::nullopt;
  }

  struct Found {
    uint32_t round, machine;
    Measured measured;
    int64_t rebuilt;  // LooseNode::rebuilt() then
    uint8_t lag;      // how many rounds older than its round the weights were
  };

  /// The round's vote, once; and behind it a look at the next round, while this one's record is under way.
  void vote(uint32_t round) {
    const auto lane = node_.lane();
    if (!lane || !node_.is_open() || !node_.desk().may_vote(round)) return;
    const bool is_measured = ahead_ && ahead_->round == round && ahead_->machine == node_.desk().machine() &&
                             ahead_->rebuilt == node_.rebuilt();
    if (!is_measured) ahead_ = measure(round, *lane);
    // While it was measured, others may have gone on; the vote is late then, and still of its round.
    if (!spend() || !node_.publish_vote(vote_of(*ahead_))) return;
    scored_ = ahead_->measured.scored;
    ahead_.reset();
    if (measures_ahead(round)) ahead_ = measure(round + 1, *lane);
  }

  /// A digest is of the weights before its round, and no look at older ones goes with it.
  bool measures_ahead(uint32_t round) const {
    return config_.loose.ahead && replica_.header().stale_max > 0 && round + 1 < rounds_in_all() &&
           !packer_.digest_due(round + 1) && !is_asked_to_stop();
  }

  Voter::Inputs voter_inputs() {
    return {.ctx = in_.ctx,
            .data = in_.data,
            .train = in_.config.train,
            .spsa = config_,
            .header = replica_.header(),
            .prober = *spsa_.prober,
            .between = [this] { node_.attend(), packer_.pack(); }};
  }

  Found measure(uint32_t round, uint32_t lane) {
    const uint32_t machine = node_.desk().machine();
    const int unit = replica_.recent().unit_of(round);
    const Voter voter(voter_inputs(), machine, lane);
    const auto measured = private_voter_ ? private_voter_->measure(round, unit, machine, lane)
                          : crew_        ? crew().measure(voter, round, unit, machine, lane)
                                         : voter.measure(round, unit);
    return {round, machine, measured, node_.rebuilt(), static_cast<uint8_t>(round - replica_.round())};
  }

  /// The other ranks, who have the records that this one has applied, or its state where that was rebuilt.
  CrewLeader& crew() {
    if (std::exchange(rebuilt_of_crew_, node_.rebuilt()) != node_.rebuilt()) crew_->note_state();
    return *crew_;
  }

  // --- what votes tell of the data

  void begin_privacy() {
    const HeaderTerms& terms = *replica_.header().terms;
    const int64_t documents = in_.data.documents(), batch = in_.config.train.batch;
    if (batch > documents)
      throw UserError("train.batch", fmt::format("{} documents a probe, and there are {}", batch, documents),
                      "take more data or a smaller batch: each document is drawn with probability batch / documents");
    PrivacyTerms mine{.run = hex_text(node_.run().sha256),
                      .node = spsa_.nats.node,
                      .documents = documents,
                      .release = {.q = static_cast<double>(batch) / static_cast<double>(documents), .sigma = 0},
                      .clip = terms.privacy->clip,
                      .delta = terms.privacy->delta,
                      .epsilon = terms.privacy->epsilon};
    mine.release.sigma = config_.privacy.noise.value_or(0);
    if (!config_.privacy.noise)
      with_place("privacy.epsilon", [&] {
        mine.release.sigma =
            smallest_noise(mine.epsilon, rounds_in_all() * replica_.header().m, mine.release.q, mine.delta);
      });
    ledger_.emplace(in_.run_path / "privacy.json", mine, node_.votes_in_log());
    private_voter_.emplace(voter_inputs(), mine);
    in_.report.say(ledger_->text());
  }

  /// Before a vote is sent: what is counted and not sent costs a little, what is sent and not counted is a lie.
  /// @return false while it cannot be written down
  bool spend() {
    try {
      if (!ledger_ || ledger_->spend(replica_.header().m)) return true;
    } catch (const UserError& error) {
      node_.wait_for_disk(error);
      return false;
    }
    node_.leave();
    throw UserError("privacy",
                    fmt::format("the budget of epsilon = {:g} is spent after {} releases; this machine leaves",
                                ledger_->terms().epsilon, ledger_->releases()),
                    "the others go on. A larger budget, or more noise, is another run");
  }

  Vote vote_of(const Found& found) const {
    Vote vote;
    vote.run = node_.run().prefix();
    vote.seed_round = found.round;
    vote.machine = found.machine;
    vote.lag = found.lag;
    vote.bytes = found.measured.bytes;
    if (!ledger_) vote.loss = to_float16(static_cast<float>(found.measured.loss)).bits;
    if (found.lag == 0 && packer_.digest_due(found.round)) {
      const StateDigest digest = replica_.digest(in_.ctx);
      vote.digest = {digest.sum, digest.check};
    }
    return vote;
  }

  /// @param halvings  before the round
  StepReport report(int64_t step, const LogEngine::Traffic& before, int halvings) {
    if (replica_.last().votes > 0) notices_.tell(step, replica_.last(), replica_.halvings() > halvings);
    const float rate = packer_.offer(static_cast<uint32_t>(step - 1)).rate;
    StepReport result = report_of(replica_, {.loss_of_votes = std::nan(""),
                                             .rate = std::ldexp(rate, -halvings),
                                             .rows_of_machine = rows_of_machine(),
                                             .scored_of_machine = scored_,
                                             .dropped = node_.box().dropped_in_all(),
                                             .before = before,
                                             .now = node_.traffic()});
    result.stop = is_asked_to_stop();
    if (result.stop && step < rounds_in_all()) node_.leave();
    result.extra.set("machines", node_.lanes_taken())
        .set("conflicts", node_.conflicts())
        .set("reseeds", node_.reseeds());
    return result;
  }

  const TrainerInputs& in_;
  const SpsaInputs& spsa_;
  const SpsaConfig& config_;
  Snapshots snapshots_;
  RoundNotices notices_;
  LooseNode node_;
  LoosePacker packer_;
  Replica& replica_;
  std::optional<PrivacyLedger> ledger_;  // with [privacy]
  std::optional<PrivateVoter> private_voter_;
  std::optional<Found> ahead_;
  int64_t scored_ = 0;
  int64_t rebuilt_ = 0;             // LooseNode::rebuilt() when the model was put together last,
  int64_t rebuilt_of_crew_ = 0;     // and when the other ranks were told last
  std::optional<CrewLeader> crew_;  // where this rank is not the only one
};

}  // namespace

std::unique_ptr<Stepper> make_loose_stepper(const TrainerInputs& in, const SpsaConfig& config) {
  const auto* spsa = dynamic_cast<const SpsaInputs*>(in.prepared);
  TS_CHECK(spsa, "a training by SPSA was not prepared");
  if (in.world.rank() > 0) return make_crew_stepper(in, *spsa, config);
  return std::make_unique<LooseStepper>(in, *spsa, config);
}

}  // namespace tessera

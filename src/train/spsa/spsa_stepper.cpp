// train.estimator = "spsa": each machine measures the loss a little way along its own random directions and says one
// byte about each; the bytes of a round become one record of the log, and the record moves every replica alike.
//
//   evaluate  ->  publish  ->  wait for the votes  ->  pack  ->  append to the log, synced  ->  apply
//
// The log is the checkpoint: whoever is killed replays it from the newest snapshot and goes on.

#include "train/spsa/spsa_stepper.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/error.h"
#include "score/evaluation.h"
#include "train/divergence.h"
#include "train/optimizers/optimizer.h"
#include "train/spsa/branch.h"
#include "train/spsa/catching_up.h"
#include "train/spsa/divergence.h"
#include "train/spsa/figures.h"
#include "train/spsa/loose/loose_stepper.h"
#include "train/spsa/restored_run.h"
#include "train/spsa/round_notices.h"
#include "train/spsa/round_report.h"
#include "train/spsa/snapshots.h"
#include "train/spsa/spsa_inputs.h"
#include "train/spsa/voter.h"
#include "train/steps.h"

namespace tessera {
namespace {

using Manners = LogEngine::Manners;
using Clock = std::chrono::steady_clock;

constexpr auto kPatience = std::chrono::seconds(2);  // of machine k with each machine before it that ought to pack

class SpsaStepper final : public Stepper {
 public:
  SpsaStepper(const TrainerInputs& in, const SpsaInputs& spsa, const SpsaConfig& config)
      : in_(in),
        spsa_(spsa),
        config_(config),
        transport_(transport_named(config.transport)),
        members_(*spsa.members),
        params_(in.model.pool().trainable()),
        replica_(spsa.header, params_),
        voter_({.ctx = in.ctx,
                .data = in.data,
                .train = in.config.train,
                .spsa = config_,
                .header = replica_.header(),
                .prober = *spsa.prober},
               members_.machine()),
        snapshots_(in.folder ? *in.folder / "checkpoints" : "", in.config.checkpoint.keep, config_.compact),
        notices_(in.report, replica_.header().eps),
        steps_(total_steps(in)) {}

  std::optional<Restored> restore() override {
    const std::string header = spsa_.header.text();
    run_.sha256 = sha256(std::as_bytes(std::span(header)));
    if (writes_log()) log_.emplace(StepLog::create(log_folder(), header, {}));
    if (log_) {
      for (const std::string& notice : log_->notices()) in_.report.say(notice);
    }
    const bool has_lasting_log = manners().catch_up == Manners::CatchUp::from_log;
    if (!has_lasting_log) tip_ = catch_up_with_ranks(mine());
    engine_ =
        transport_.make({.world = in_.world, .folder = spsa_.shared, .header_json = header, .log_size = tip_.index});
    if (has_lasting_log) tip_ = catch_up_with_folder(mine(), *engine_, spsa_.shared);
    if (const std::string notice = require_log(snapshots_.folder(), log_folder(), replica_.round()); !notice.empty())
      in_.report.say(notice);
    if (log_) snapshots_.know(*log_);
    std::array<double, 1> ended{log_ && log_->chain().ended() ? 1.0 : 0.0};  // a kill may have come just behind that
    in_.world.all_reduce_max(std::span<double>(ended));
    ended_ = ended[0] > 0;
    in_.model.assemble(in_.ctx);
    std::optional<Restored> run;
    if (replica_.round() > 0) {
      run = restored_run(in_, replica_, log_ ? &*log_ : nullptr, {rows_of_machine(), members_.machines()});
      steps_ = run->steps;
    }
    refuse_ended_log();
    if (!run) return run;
    in_.report.say(fmt::format("going on from step {}, rebuilt from the log: {}", replica_.round(),
                               replica_.digest(in_.ctx).text()));
    if (steps_ != total_steps(in_))
      in_.report.say(fmt::format("{} rows are read so far; what is left of the epochs takes {} steps with {} machines",
                                 run->meta.rows_consumed, steps_ - replica_.round(), members_.machines()));
    return run;
  }

  void keep_figures(const CheckpointMeta& meta) override {
    if (in_.folder) tessera::keep_figures(in_.folder->path(), meta);
  }

  std::optional<StepReport> take(int64_t step) override {
    const auto round = static_cast<uint32_t>(step - 1);
    TS_CHECK(replica_.round() == round, "step {} after {} rounds", step, replica_.round());
    const LogEngine::Traffic before = engine_->traffic();
    const int halvings = replica_.halvings();
    votes_ = std::exchange(early_votes_, {});
    read_records(Rounds::next);  // the others may not have waited for this machine
    if (replica_.round() == round) {
      const Measured measured = voter_.measure(round, replica_.unit());
      scored_ = measured.scored;
      engine_->publish_vote(encode(my_vote(measured, step)));
      voted_ = round;
      if (!finish_round(round, step)) return std::nullopt;
    }
    in_.model.assemble(in_.ctx);
    refuse_empty_rounds(replica_, in_.model, log_ ? &*log_ : nullptr, step);
    return report(step, before, halvings);
  }

  void checkpoint(const CheckpointMeta& meta, bool is_best) override {
    Record record = record_head(replica_, run_, tip_, RecordType::snapshot);
    const StateDigest digest = replica_.digest(in_.ctx);
    record.digest = {digest.sum, digest.check};
    keep_figures(meta);
    HashedFile saved;
    if (in_.folder) saved = snapshots_.save(replica_, is_best);
    saved = broadcast_value(in_.world, saved, 0);
    record.sha256 = saved.sha256;
    record.file_bytes = saved.bytes;
    if (log_ && config_.compact != "keep") log_->new_segment();
    append_once(record);
    const uint64_t old = in_.folder ? snapshots_.remove_old(replica_.round()) : 0;
    const uint64_t index = broadcast_value(in_.world, old, 0);
    if (log_) snapshots_.compact(*log_, index);
  }

  std::string way_out_of_divergence() const override { return lower_rate_from_start(in_); }

  void finish() override {
    if (replica_.empty_rounds() > 0)
      throw UserError(fmt::format("step {}", replica_.round()),
                      "no vote of the last round was valid: the losses are not finite",
                      "lower optimizer.lr or spsa.eps, and start anew or from a branch (job=replay)");
    append_once(record_head(replica_, run_, tip_, RecordType::end));
    const std::string digest = replica_.digest(in_.ctx).text();
    require_equal(in_.world, "the digests of the trained weights", digest);
    in_.report.say(fmt::format("digest {}{}", digest,
                               in_.world.size() > 1 ? fmt::format(" on all {} ranks", in_.world.size()) : ""));
  }

 private:
  const Manners& manners() const { return transport_.manners; }
  bool all_pack() const { return manners().who_packs == Manners::Packer::each; }
  int64_t rows_of_machine() const { return config_.rows_of_machine(in_.config.train.batch); }

  bool writes_log() const { return in_.world.rank() == 0 || in_.world.local_rank() == 0 || config_.logs == "every"; }
  std::filesystem::path log_folder() const { return rank_log_folder(in_.run_path, in_.world.rank()); }

  void refuse_ended_log() const {
    if (!ended_ || replica_.round() >= steps_) return;
    throw UserError(
        log_folder().string(),
        fmt::format("the run has ended with round {}, and {} steps are asked for", replica_.round(), steps_),
        "a branch of it goes on: " + branch_command(config_));
  }

  // --- what was there before

  Replicated mine() { return {in_.ctx, in_.world, replica_, log_ ? &*log_ : nullptr, snapshots_.folder()}; }

  // --- a machine's votes

  Vote::Offer offer(int64_t step) const {
    const OptimizerConfig& optimizer = in_.config.optimizer;
    const double lr = learning_rate(optimizer, step, steps_, in_.rules);
    return {static_cast<float>(lr), static_cast<float>(1 - lr * optimizer.weight_decay)};
  }

  Vote my_vote(const Measured& measured, int64_t step) const {
    Vote vote;
    vote.run = run_.prefix();
    vote.seed_round = replica_.round();
    vote.machine = members_.machine();
    vote.bytes = measured.bytes;
    vote.loss = to_float16(static_cast<float>(measured.loss)).bits;
    vote.stop = manners().stop_in_votes && is_asked_to_stop();
    if (all_pack() && members_.machine() == 0) vote.offer = offer(step);
    if (digest_due()) {
      const StateDigest digest = replica_.digest(in_.ctx);
      vote.digest = {digest.sum, digest.check};
    }
    return vote;
  }

  bool leaves_alone() const { return !manners().stop_in_votes && is_asked_to_stop(); }

  bool is_asked_to_stop() const { return in_.stop_requested && in_.stop_requested(); }

  bool digest_due() const { return replica_.round() > 0 && replica_.round() % replica_.header().digest_every == 0; }

  // --- a round

  /// Waits until the round's record is in the log and applied. Where each rank has a copy of the log, each packs its
  /// own. In a shared log any machine may pack once all votes are there, and the first record counts: machine k leaves
  /// it to those before it for k times kPatience, so that one that has died holds nobody up.
  /// @return false when a stop was asked for while waiting
  bool finish_round(uint32_t round, int64_t step) {
    const auto start = Clock::now();
    bool told = false;
    while (replica_.round() == round) {
      engine_->wait(std::chrono::milliseconds(50));
      take_votes(round);
      read_records(Rounds::next);
      if (replica_.round() != round) break;
      const auto waited = Clock::now() - start;
      const bool has_all = votes_.size() == members_.machines();
      if (has_all && (all_pack() || waited >= members_.machine() * kPatience)) {
        pack(step);
      } else if (leaves_alone()) {
        return false;
      } else if (!has_all && waited > std::chrono::seconds(5)) {
        if (!told) in_.report.say(fmt::format("step {}: waiting for the vote of {}", step, first_missing()));
        told = true;
      }
    }
    return true;
  }

  std::string first_missing() const {
    uint32_t machine = 0;
    while (votes_.count(machine)) ++machine;
    const bool runs = !spsa_.seat || spsa_.seat->is_taken(machine);
    return fmt::format("machine {}{}", machine, runs ? "" : ", which does not run");
  }

  void take_votes(uint32_t round) {
    for (const Bytes& bytes : engine_->take_votes()) {
      const auto decoded = decode_vote_message(bytes);
      const Vote* vote = std::get_if<Vote>(&decoded);
      const auto expected = static_cast<size_t>(replica_.header().m * replica_.header().bytes_per_probe());
      const bool is_early = vote && vote->seed_round == round + 1;  // of a machine that has read this round's record
      // What others send is not trusted: it may be of another run or round, or of a machine that has no number here.
      if (!vote || vote->run != run_.prefix() || (vote->seed_round != round && !is_early) ||
          vote->machine >= members_.machines() || vote->bytes.size() != expected) {
        ++dropped_;
        continue;
      }
      (is_early ? early_votes_ : votes_).emplace(vote->machine, *vote);  // the first counts
    }
  }

  void pack(int64_t step) {
    compare_digests();
    const auto first = votes_.find(0);
    const Vote::Offer terms = first != votes_.end() && first->second.offer ? *first->second.offer : offer(step);
    const Losses losses = config_.log_loss ? Losses::kept : Losses::left_out;
    const Bytes record = encode(pack_round(replica_, run_, tip_, votes_, members_.machines(), terms, losses));
    engine_->append(tip_.index, record);
    read_records(Rounds::next);
    const bool appends = manners().total_order == Manners::Order::copies || members_.machine() == 0;
    if (digest_due() && appends) {
      Record check = record_head(replica_, run_, tip_, RecordType::digest);
      const StateDigest digest = replica_.digest(in_.ctx);
      check.digest = {digest.sum, digest.check};
      append_once(check);
    }
  }

  void compare_digests() const {
    if (!digest_due()) return;
    const StateDigest mine = replica_.digest(in_.ctx);
    for (const auto& [machine, vote] : votes_) {
      if (!vote.digest || StateDigest{(*vote.digest)[0], (*vote.digest)[1]} == mine) continue;
      throw UserError(
          fmt::format("round {}", replica_.round()),
          fmt::format("machines {} and {} hold different weights after the same rounds", members_.machine(), machine),
          "one of them has bad memory or other base weights: rebuild each with job=replay and compare");
    }
  }

  /// Appends what any machine may append, unless another has, or the log has gone on to the next round.
  void append_once(Record record) {
    for (bool has_read = true; has_read && !is_told(record);) {
      record.index = tip_.index;
      record.prev = tip_.prev;
      engine_->append(tip_.index, encode(record));
      read_records(Rounds::none);
      has_read = tip_.index > record.index;
    }
  }

  bool is_told(const Record& record) const {
    return record.type == RecordType::end        ? ended_
           : record.type == RecordType::snapshot ? snapshots_.knows(record.round)
                                                 : digest_told_ == record.round;
  }

  enum class Rounds { none, next };

  /// Takes new records, first to disk, then to the weights: up to the next round's, or to the one after it.
  void read_records(Rounds rounds) {
    const uint32_t last = replica_.round() + (rounds == Rounds::next ? 1 : 0);
    for (const Bytes& bytes : engine_->read(tip_.index)) {
      const auto decoded = decode_record(bytes);
      if (const auto* refusal = std::get_if<Refusal>(&decoded)) throw_poisoned(tip_.index, *refusal);
      const Record& record = std::get<Record>(decoded);
      if (record.type == RecordType::round && replica_.round() == last) return;
      if (log_) log_->append(bytes);  // a kill in between leaves a log to replay, never weights without one
      tip_.advance(bytes);
      note(record);
      replica_.apply(in_.ctx, record);
    }
  }

  void note(const Record& record) {
    snapshots_.know(record);
    ended_ = ended_ || record.type == RecordType::end;
    if (record.type == RecordType::digest) digest_told_ = record.round;
    if (record.type != RecordType::round || voted_ != record.round) return;
    const uint32_t machine = members_.machine();
    const bool heard = machine < record.present.size() && record.present[machine];
    if (!heard && heard_)
      in_.report.say(fmt::format("step {}: the others went on without this machine's vote; it follows them",
                                 int64_t{record.round} + 1));
    heard_ = heard;
  }

  /// @param halvings  before the round
  StepReport report(int64_t step, const LogEngine::Traffic& before, int halvings) {
    const RoundStats& round = replica_.last();
    bool asked = leaves_alone();
    for (const auto& [machine, vote] : votes_) asked = asked || vote.stop;
    notices_.tell(step, round, replica_.halvings() > halvings);
    StepReport result = report_of(replica_, {.loss_of_votes = mean_loss(votes_),
                                             .rate = std::ldexp(offer(step).rate, -halvings),
                                             .rows_of_machine = rows_of_machine(),
                                             .scored_of_machine = scored_,
                                             .dropped = dropped_,
                                             .before = before,
                                             .now = engine_->traffic()});
    result.stop = asked;
    return result;
  }

  const TrainerInputs& in_;
  const SpsaInputs& spsa_;
  const SpsaConfig& config_;
  const Transport& transport_;
  const Membership& members_;
  FlatParams& params_;
  Replica replica_;
  Voter voter_;
  Snapshots snapshots_;
  RoundNotices notices_;
  RunId run_;
  ChainTip tip_;
  std::optional<StepLog> log_;
  std::unique_ptr<LogEngine> engine_;
  std::map<uint32_t, Vote> votes_, early_votes_;  // of this round, and of the next
  std::optional<uint32_t> voted_, digest_told_;   // rounds: of this machine's last vote, of the last digest record
  int64_t steps_;                                 // of the whole run
  int64_t scored_ = 0, dropped_ = 0;
  bool ended_ = false, heard_ = true;  // heard: this machine's last vote is in its round's record
};

}  // namespace

std::unique_ptr<Stepper> make_spsa_stepper(const TrainerInputs& in, const SpsaConfig& config) {
  const auto* spsa = dynamic_cast<const SpsaInputs*>(in.prepared);
  TS_CHECK(spsa, "a training by SPSA was not prepared");
  if (transport_named(config.transport).is_loose()) return make_loose_stepper(in, config);
  return std::make_unique<SpsaStepper>(in, *spsa, config);
}

}  // namespace tessera

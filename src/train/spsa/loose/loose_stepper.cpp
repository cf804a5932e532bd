// A round of loose nodes:
//
//   measure -> vote -> wait for the record of the round, or pack it -> append to the own log, synced -> apply
//
// Nothing here waits for a machine by name. A record needs a quorum and a deadline; who is late counts in the next one,
// who is silent loses its lane, who comes asks for one. The engine's log orders records and is compared with the own on
// every connection.

#include "train/spsa/loose/loose_stepper.h"

#include <cmath>
#include <random>
#include <thread>

#include "core/error.h"
#include "core/minifloat.h"
#include "train/spsa/divergence.h"
#include "train/spsa/figures.h"
#include "train/spsa/loose/membership_desk.h"
#include "train/spsa/loose/roster_office.h"
#include "train/spsa/loose/stream_keeper.h"
#include "train/spsa/restored_run.h"
#include "train/spsa/round_notices.h"
#include "train/spsa/round_report.h"
#include "train/spsa/rounds.h"
#include "train/spsa/snapshots.h"
#include "train/spsa/spsa_inputs.h"
#include "train/spsa/vote_box.h"
#include "train/spsa/voter.h"
#include "train/divergence.h"

namespace tessera {
namespace {

using Clock = RoundClock::Clock;
using Seconds = RoundClock::Seconds;

constexpr int kMostEmptyRounds = 16;
constexpr size_t kTogether = 256;  // records that are applied at once while catching up
constexpr uint16_t kLostARace = 8;  // flag of a record: its packer has lost a compare-and-set since its last one
constexpr auto kPause = std::chrono::milliseconds(50);

uint32_t draw_number() {
  std::random_device system;
  return static_cast<uint32_t>(system());
}

class LooseStepper final : public Stepper {
 public:
  LooseStepper(const TrainerInputs& in, const SpsaInputs& spsa, const SpsaConfig& config)
      : in_(in),
        spsa_(spsa),
        config_(config),
        replica_(spsa.header, in.model.pool().trainable()),
        snapshots_(*in.folder / "checkpoints", in.config.checkpoint.keep, config_.compact),
        notices_(in.report, replica_.header().eps),
        run_{sha256(std::as_bytes(std::span(text_)))},
        desk_(in.run_path / "node.json", spsa.nats.node, run_, draw_number),
        office_(run_, config.loose.absent_limit),
        box_(run_),
        clock_(config.loose.quorum, config.loose.deadline, Seconds(config.loose.first_deadline)) {}

  std::optional<Restored> restore() override {
    open_log();
    replay(in_.ctx, replica_, *log_, snapshots_.folder(), rounds_in(*log_));
    engine_ = transport_named(config_.transport)
                  .make({.world = in_.world, .folder = {}, .header_json = text_, .log_size = 0, .nats = spsa_.nats});
    keeper_.emplace(StreamKeeper::Inputs{.engine = *engine_,
                                         .log = *log_,
                                         .node = spsa_.nats.node,
                                         .rank = [this](const std::string& node) { return rank_of(node); },
                                         .reseed = [this] { return encode(head(RecordType::reseed)); },
                                         .say = [this](const std::string& text) { in_.report.say(text); }});
    catch_up();
    if (const std::string notice = require_log(snapshots_.folder(), log_folder(), replica_.round()); !notice.empty())
      in_.report.say(notice);
    snapshots_.know(*log_);
    in_.model.assemble(in_.ctx);
    if (replica_.round() == 0) return std::nullopt;
    auto run = restored_run(in_, replica_, &*log_, {rows_of_machine(), std::max<int64_t>(1, lanes_taken())});
    run.steps = rounds_in_all();
    in_.report.say(fmt::format("going on from step {}, rebuilt from the log: {}", replica_.round(),
                               replica_.digest(in_.ctx).text()));
    return run;
  }

  void keep_figures(const CheckpointMeta& meta) override { tessera::keep_figures(in_.folder->path(), meta); }

  std::optional<StepReport> take(int64_t step) override {
    const auto round = static_cast<uint32_t>(step - 1);
    TS_CHECK(replica_.round() == round, "step {} after {} rounds", step, replica_.round());
    const LogEngine::Traffic before = engine_->traffic();
    const int halvings = replica_.halvings();
    told_waiting_ = false;
    while (replica_.round() == round) {
      clock_.begin(round, Clock::now());
      attend();
      read_records(round + 1);
      if (replica_.round() != round) break;
      if (is_asked_to_stop()) return leave();
      ask_for_lane();
      vote(round);
      pack();
      engine_->wait(kPause);
    }
    in_.model.assemble(in_.ctx);
    refuse_empty_rounds(step);
    return report(step, before, halvings);
  }

  void checkpoint(const CheckpointMeta& meta, bool is_best) override {
    keep_figures(meta);
    const HashedFile saved = snapshots_.save(replica_, is_best);
    if (config_.compact != "keep") log_->new_segment();
    Record record = head(RecordType::snapshot);
    const StateDigest digest = replica_.digest(in_.ctx);
    record.digest = {digest.sum, digest.check};
    record.sha256 = saved.sha256;
    record.file_bytes = saved.bytes;
    if (packed_last_ && is_open_ && !ended_) append_and_read(record);
    snapshots_.compact(*log_, snapshots_.remove_old(replica_.round()));
  }

  std::string way_out_of_divergence() const override { return lower_rate_from_start(in_); }

  /// The END, by whoever may write it first; a machine that may not waits a while for it.
  void finish() override {
    const auto start = Clock::now();
    const Seconds patience = std::max(Seconds(5), 4 * clock_.deadline());
    while (!ended_ && Clock::now() - start < patience) {
      attend();
      read_records(replica_.round());
      if (!ended_ && may_pack() && Clock::now() - start >= clock_.patience(place())) append_and_read(head(RecordType::end));
      if (!ended_) engine_->wait(kPause);
    }
    if (!ended_) in_.report.say("the engine's log has no END yet: the machine that packs next writes it");
    in_.report.say(fmt::format("digest {}", replica_.digest(in_.ctx).text()));
  }

 private:
  std::filesystem::path log_folder() const { return rank_log_folder(in_.run_path, 0); }
  int64_t rows_of_machine() const { return config_.rows_of_machine(in_.config.train.batch); }
  int64_t rounds_in_all() const { return replica_.header().terms->rounds; }
  bool is_asked_to_stop() const { return in_.stop_requested && in_.stop_requested(); }
  Record head(RecordType type) const { return record_head(replica_, run_, tip_, type); }

  // --- what was there before

  void open_log() {
    log_.emplace(StepLog::create(log_folder(), text_, {}));
    for (const std::string& notice : log_->notices()) in_.report.say(notice);
    tip_ = {log_->size(), log_->chain().prev()};
    ended_ = log_->chain().ended();
  }

  /// All that the engine has beyond the own log, in runs; returns once nothing more is there, or the engine's log is
  /// the shorter one, which take() sees to.
  void catch_up() {
    std::vector<Record> run;
    const auto flush = [&] {
      replica_.apply(in_.ctx, run);
      run.clear();
    };
    for (int quiet = 0; quiet < 2;) {
      attend();
      const LogEngine::LogState state = engine_->log_state();
      if (is_open_)
        for (const Bytes& bytes : engine_->read(tip_.index)) {
          run.push_back(append_to_own(bytes));
          if (run.size() == kTogether) flush();
        }
      quiet = state.complete && tip_.index >= state.records ? quiet + 1 : 0;
      if (is_asked_to_stop()) break;
      if (quiet < 2) engine_->wait(kPause);
    }
    flush();
  }

  // --- the engine

  /// Takes what has come. Changes no weights: it is also called between the probes of a round.
  void attend() {
    for (const LogEngine::Sent& sent : engine_->take_controls()) {
      const auto decoded = decode_control_message(sent.bytes);
      const auto* message = std::get_if<ControlMessage>(&decoded);
      if (const auto* have = message ? std::get_if<HaveRecords>(message) : nullptr)
        keeper_->take(*have, sent.node);
      else
        office_.take(sent);
    }
    for (const LogEngine::Sent& sent : engine_->take_sent_votes())
      box_.take(replica_, sent.bytes, [&](uint32_t machine) { return office_.speaks_for(sent.node, machine); });
    is_open_ = keeper_->attend(Clock::now(), 2 * clock_.deadline());
  }

  /// Takes new records, first to disk, then to the weights, up to so many rounds.
  void read_records(uint32_t rounds) {
    if (!is_open_) return;
    for (const Bytes& bytes : engine_->read(tip_.index)) {
      if (replica_.round() == rounds && is_round(bytes)) return;
      const Record record = append_to_own(bytes);
      replica_.apply(in_.ctx, record);
      box_.forget(replica_);
    }
  }

  static bool is_round(const Bytes& bytes) {
    const auto decoded = decode_record(bytes);
    const auto* record = std::get_if<Record>(&decoded);
    return record && record->type == RecordType::round;
  }

  /// @throws UserError when it breaks a rule: every honest replica refuses it alike
  Record append_to_own(const Bytes& bytes) {
    const auto decoded = decode_record(bytes);
    if (const auto* refusal = std::get_if<Refusal>(&decoded))
      throw UserError(fmt::format("record {}", tip_.index),
                      fmt::format("broken rule \"{}\": {}", refusal->rule, refusal->detail),
                      "the log is poisoned, the run stops here; the rounds before are whole");
    const Record& record = std::get<Record>(decoded);
    if (record.type == RecordType::round) office_.note(record, log_->chain().rounds());
    log_->append(bytes);  // a kill in between leaves a log to replay, never weights without one
    tip_.advance(bytes);
    snapshots_.know(record);
    ended_ = ended_ || record.type == RecordType::end;
    if (record.type == RecordType::digest) digest_told_ = record.round;
    if (record.type == RecordType::round) packed_last_ = packed_ == std::optional(record.round);
    return record;
  }

  /// How a node stands among others with equally long logs: by its lane, and those without one behind them.
  int64_t rank_of(const std::string& node) const {
    const Roster& roster = replica_.roster();
    for (size_t lane = 0; lane < roster.size(); ++lane)
      if (roster[lane] && office_.speaks_for(node, *roster[lane])) return static_cast<int64_t>(lane);
    return static_cast<int64_t>(roster.size());
  }

  // --- this machine

  void ask_for_lane() {
    if (!is_open_) return;
    desk_.ask(*engine_, replica_.recent(), Clock::now(), 3 * clock_.deadline(),
              [this](uint32_t machine) { return office_.is_anothers(spsa_.nats.node, machine); });
  }

  std::nullopt_t leave() {
    desk_.leave(*engine_);
    engine_->wait(kPause);
    return std::nullopt;
  }

  bool digest_due(uint32_t round) const {
    return round > 0 && round % static_cast<uint32_t>(replica_.header().digest_every) == 0;
  }

  struct Ahead {
    uint32_t round, machine;
    Measured measured;
  };

  void vote(uint32_t round) {
    const auto lane = desk_.lane(replica_.recent());
    if (!lane || !is_open_ || !desk_.may_vote(round)) return;
    int lag = 1;
    if (!ahead_ || ahead_->round != round || ahead_->machine != desk_.machine()) {
      ahead_ = Ahead{round, desk_.machine(), measure(round, *lane)};
      lag = 0;
    }
    // While it was measured, others may have gone on; the vote is late then, and still of the round.
    const Vote mine = my_vote(*ahead_, lag);
    desk_.note_vote(round);
    engine_->publish_vote(encode(mine));
    scored_ = ahead_->measured.scored;
    ahead_.reset();
    if (measures_ahead(round)) ahead_ = Ahead{round + 1, desk_.machine(), measure(round + 1, *lane)};
  }

  /// A digest is of the weights before the round, and no look at older ones goes with it.
  bool measures_ahead(uint32_t round) const {
    return config_.loose.ahead && replica_.header().stale_max > 0 && round + 1 < rounds_in_all() &&
           !digest_due(round + 1) && !is_asked_to_stop();
  }

  Measured measure(uint32_t round, uint32_t lane) {
    const Voter voter({.ctx = in_.ctx,
                       .data = in_.data,
                       .train = in_.config.train,
                       .spsa = config_,
                       .header = replica_.header(),
                       .prober = *spsa_.prober,
                       .between = [this] { attend(), pack(); }},
                      desk_.machine(), lane);
    return voter.measure(round, replica_.recent().unit_of(round));
  }

  Vote my_vote(const Ahead& found, int lag) const {
    Vote vote;
    vote.run = run_.prefix();
    vote.seed_round = found.round;
    vote.machine = found.machine;
    vote.lag = static_cast<uint8_t>(lag);
    vote.bytes = found.measured.bytes;
    vote.loss = to_float16(static_cast<float>(found.measured.loss)).bits;
    if (lag == 0 && digest_due(found.round)) {
      const StateDigest digest = replica_.digest(in_.ctx);
      vote.digest = {digest.sum, digest.check};
    }
    return vote;
  }

  // --- the record of a round

  bool may_pack() const {
    return is_open_ && !ended_ && config_.loose.packs != "false" && engine_->log_state().may_pack;
  }

  static int64_t taken(const Roster& roster) {
    return std::ranges::count_if(roster, [](const auto& machine) { return machine.has_value(); });
  }
  int64_t lanes_taken() const { return taken(replica_.roster()); }

  /// Who keeps a lane in the next record. Nobody waits for votes of those that lose theirs: without them a quorum would
  /// never come where most have left.
  Roster staying(const std::vector<RosterChange>& changes) const {
    Roster roster = replica_.roster();
    for (const RosterChange& change : changes)
      if (!change.add) roster[change.lane].reset();
    return roster;
  }

  /// This machine's place among those with a lane: who packs first. One without a lane comes last.
  int64_t place() const {
    const auto lane = desk_.lane(replica_.recent());
    const Roster& roster = replica_.roster();
    const auto end = lane ? roster.begin() + *lane : roster.end();
    return std::count_if(roster.begin(), end, [](const auto& machine) { return machine.has_value(); });
  }

  void pack() {
    const uint32_t round = replica_.round();
    if (!may_pack() || packed_ == std::optional(round) || engine_->log_state().records != tip_.index) return;
    const auto changes = office_.changes(replica_.recent());
    const Roster awaited = staying(changes);
    const int64_t lanes = taken(awaited), present = box_.present(replica_, awaited);
    if (lanes == 0 && changes.empty()) return;
    if (!clock_.may_pack(Clock::now(), present, lanes, place())) return tell_waiting(present, lanes);
    if (!settle_digest(round)) return;
    Record record = pack_round(replica_, run_, tip_, box_.votes_of(replica_), changes, offer(round),
                               config_.log_loss ? Losses::kept : Losses::left_out);
    if (append(record)) packed_ = round;
  }

  Vote::Offer offer(uint32_t round) const {
    const auto [rate, mul] = replica_.header().terms->rate_of(round, replica_.header().rules);
    return {rate, mul};
  }

  /// Whether the record got the place. Of an append without an answer nothing is known: it is repeated, or the record is
  /// read.
  bool append(Record record) {
    record.flags = static_cast<uint16_t>(record.flags | (lost_a_race_ ? kLostARace : 0));
    const auto done = engine_->append(tip_.index, encode(record));
    if (done == LogEngine::Append::conflict) {
      lost_a_race_ = true;
      ++conflicts_;
    }
    if (done == LogEngine::Append::won) lost_a_race_ = false;
    return done == LogEngine::Append::won;
  }

  void append_and_read(const Record& record) {
    if (!append(record)) return;
    for (int k = 0; k < 100 && tip_.index <= record.index; ++k) {
      attend();
      read_records(replica_.round());
      if (tip_.index <= record.index) engine_->wait(kPause);
    }
  }

  /// The digest that more than half of the votes name is what the log says of the round's state, in a record just
  /// before that of the round. @return whether this machine packs the round now
  bool settle_digest(uint32_t round) {
    if (!digest_due(round) || digest_told_ == std::optional(round)) return true;
    std::map<StateDigest, int64_t, decltype([](const StateDigest& a, const StateDigest& b) {
               return std::pair(a.sum, a.check) < std::pair(b.sum, b.check);
             })>
        named;
    const RoundVotes votes = box_.votes_of(replica_);
    int64_t all = 0;
    for (const auto& [machine, vote] : votes.now)
      if (vote.digest) ++all, ++named[{(*vote.digest)[0], (*vote.digest)[1]}];
    const StateDigest mine = replica_.digest(in_.ctx);
    if (2 * named[mine] <= all && all > 0) {
      refuse_to_pack(round, mine, named.size() > 1 ? named.begin()->first : mine, all);
      return false;
    }
    for (const auto& [machine, vote] : votes.now)
      if (vote.digest && !(StateDigest{(*vote.digest)[0], (*vote.digest)[1]} == mine))
        box_.drop_for_digest(round, machine);
    Record check = head(RecordType::digest);
    check.machine = desk_.machine();
    check.digest = {mine.sum, mine.check};
    append(check);
    return false;  // once it is read, the round's record follows it
  }

  void refuse_to_pack(uint32_t round, const StateDigest& mine, const StateDigest& other, int64_t votes) const {
    throw UserError(fmt::format("round {}", round),
                    fmt::format("this machine's weights are not those of most: digest {} here, {} elsewhere, of {} that "
                                "told theirs",
                                mine.text(), other.text(), votes),
                    "a memory failed, or the base weights are others: start the machine again, so that it rebuilds its "
                    "weights; compare with job=replay when the difference stays");
  }

  void tell_waiting(int64_t present, int64_t lanes) {
    if (told_waiting_ || clock_.waited(Clock::now()) < std::max(Seconds(5), 2 * clock_.deadline())) return;
    told_waiting_ = true;
    in_.report.say(fmt::format("step {}: {} of {} machines have voted, a record needs a share of {}",
                               replica_.round() + 1, present, lanes, config_.loose.quorum));
  }

  void refuse_empty_rounds(int64_t step) {
    if (replica_.empty_rounds() < kMostEmptyRounds) return;
    refuse_broken_base(in_.model, step);
    throw UserError(fmt::format("step {}", step),
                    fmt::format("no vote of the last {} rounds was valid: {}", kMostEmptyRounds, name_broken(in_.model)),
                    "the losses are not finite: " +
                        hint_of_lower_rate("spsa.eps", last_good_round(*log_, replica_.header().bytes_per_probe())));
  }

  /// @param halvings  before the round
  StepReport report(int64_t step, const LogEngine::Traffic& before, int halvings) {
    notices_.tell(step, replica_.last(), replica_.halvings() > halvings);
    StepReport result = report_of(
        replica_, {.loss_of_votes = std::nan(""),
                   .rate = std::ldexp(offer(static_cast<uint32_t>(step - 1)).rate, -halvings),
                   .rows_of_machine = rows_of_machine(),
                   .scored_of_machine = scored_,
                   .dropped = box_.dropped_in_all(),
                   .before = before,
                   .now = engine_->traffic()});
    result.stop = is_asked_to_stop();
    if (result.stop && step < rounds_in_all()) (void)leave();
    result.extra.set("machines", lanes_taken()).set("conflicts", conflicts_).set("reseeds", keeper_->reseeds());
    return result;
  }

  const TrainerInputs& in_;
  const SpsaInputs& spsa_;
  const SpsaConfig& config_;
  const std::string text_ = spsa_.header.text();
  Replica replica_;
  Snapshots snapshots_;
  RoundNotices notices_;
  RunId run_;
  MembershipDesk desk_;
  RosterOffice office_;
  VoteBox box_;
  RoundClock clock_;
  ChainTip tip_;
  std::optional<StepLog> log_;
  std::unique_ptr<LogEngine> engine_;
  std::optional<StreamKeeper> keeper_;
  std::optional<Ahead> ahead_;
  std::optional<uint32_t> packed_, digest_told_;  // rounds: of the record that this machine appended, of a digest's
  int64_t scored_ = 0, conflicts_ = 0;
  bool is_open_ = false, ended_ = false, packed_last_ = false, lost_a_race_ = false, told_waiting_ = false;
};

}  // namespace

std::unique_ptr<Stepper> make_loose_stepper(const TrainerInputs& in, const SpsaConfig& config) {
  const auto* spsa = dynamic_cast<const SpsaInputs*>(in.prepared);
  TS_CHECK(spsa, "a training by SPSA was not prepared");
  return std::make_unique<LooseStepper>(in, *spsa, config);
}

}  // namespace tessera

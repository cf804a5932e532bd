#include "train/spsa/loose/loose_node.h"

#include <algorithm>
#include <random>

#include "core/error.h"
#include "train/spsa/loose/start_file.h"
#include "train/spsa/loose/stop_point.h"
#include "train/spsa/rounds.h"

namespace tessera {
namespace {

using Seconds = RoundClock::Seconds;

constexpr size_t kTogether = 256;                  // records that are applied at once while catching up
constexpr auto kRetry = std::chrono::seconds(10);  // at a disk that is full

RunId run_of(const RunHeader& header) {
  const std::string text = header.text();
  return {sha256(std::as_bytes(std::span(text)))};
}

}  // namespace

uint32_t number_of_the_system() {
  std::random_device system;
  return static_cast<uint32_t>(system());
}

LooseNode::LooseNode(Inputs in, std::unique_ptr<LogEngine> engine)
    : in_(std::move(in)),
      run_(run_of(in_.header)),
      replica_(in_.header, in_.params),
      own_(in_.log, in_.header.text()),
      desk_(in_.run / "node.json", in_.name, in_.run_name, run_, in_.draw_number),
      office_(run_, in_.spsa.loose.absent_limit),
      names_(in_.run / "nodes.json", run_),
      box_(run_),
      clock_(in_.spsa.loose.quorum, in_.spsa.loose.deadline, Seconds(in_.spsa.loose.first_deadline),
             in_.spsa.loose.absent_limit),
      signer_(in_.spsa.loose.signing_key, in_.header.terms->signers, run_),
      engine_(std::move(engine)),
      is_new_(own_.log().size() == 0) {}

void LooseNode::join() {
  for (const std::string& notice : own_.log().notices()) in_.say(notice);
  require_packer();
  if (in_.spsa.loose.on_fork == "follow") follow_engine();
  keep_start();
  replay(in_.ctx, replica_, own_.log(), in_.snapshots.folder(), rounds_in(own_.log()));
  keeper_.emplace(StreamKeeper::Inputs{.engine = *engine_,
                                       .log = own_.log(),
                                       .node = in_.name,
                                       .rank = [this](const std::string& node) { return rank_of(node); },
                                       .reseed = [this] { return signer_.encode(head(RecordType::reseed)); },
                                       .say = in_.say});
  catch_up();
  note_names();
  has_joined_ = true;
}

/// Where the engine's chain is another one, it is taken, and what only this machine has is lost.
void LooseNode::follow_engine() {
  while (!engine_->log_state().complete && !in_.is_asked_to_stop()) wait();
  const uint64_t lost = own_.follow(engine_->read(own_.log().first_index()));
  if (lost > 0) in_.say(fmt::format("{} records that are not the engine's were cut off this machine's log", lost));
}

void LooseNode::require_packer() const {
  if (in_.spsa.loose.packs == "true" && !engine_->log_state().may_pack)
    throw UserError("spsa.packs", fmt::format("the server does not let node \"{}\" write records", in_.name),
                    "name it among the packers of scripts/start_nats, or leave spsa.packs out");
  if (in_.spsa.loose.packs == "true" && !signer_.may_sign())
    throw UserError("spsa.signing_key", "its public key is not among spsa.signers",
                    "only who is there may sign records: leave spsa.packs out, and this machine votes");
  if (!signer_.may_sign())
    in_.say(in_.spsa.loose.signing_key.empty()
                ? "records are signed, and this machine has no spsa.signing_key: it votes and packs nothing"
                : "this machine's key is not among spsa.signers: it votes and packs nothing");
}

/// Records are synced in runs, before the weights move: one by one the disk would take longer than all else.
void LooseNode::catch_up() {
  using std::chrono::steady_clock;  // what it took is told, also where a node lives by another clock
  const auto start = steady_clock::now();
  Seconds replaying{0};
  std::vector<Record> run;
  int64_t caught_up = 0;
  const auto flush = [&] {
    own_.log().sync();
    const auto begin = steady_clock::now();
    replica_.apply(in_.ctx, run);
    replaying += steady_clock::now() - begin;
    caught_up += std::ssize(run);
    run.clear();
  };
  for (int quiet = 0; quiet < 2;) {
    attend();
    const LogEngine::LogState state = engine_->log_state();
    if (is_open_)
      for (const Bytes& bytes : engine_->read(own_.tip().index)) {
        run.push_back(own_.decode(bytes));
        append(run.back(), bytes, StepLog::Sync::later);
        if (run.size() == kTogether) flush();
      }
    quiet = state.complete && own_.tip().index >= state.records ? quiet + 1 : 0;
    if (in_.is_asked_to_stop()) break;
    if (quiet < 2) wait();
  }
  flush();
  if (caught_up > 0)
    in_.say(fmt::format("caught up with {} records: {:.2f} s of reading, {:.2f} s of replaying", caught_up,
                        (Seconds(steady_clock::now() - start) - replaying).count(), replaying.count()));
}

void LooseNode::attend() {
  const std::vector<LogEngine::Sent> controls = engine_->take_controls();
  for (const LogEngine::Sent& sent : controls) {
    const auto decoded = decode_control_message(sent.bytes);
    const auto* message = std::get_if<ControlMessage>(&decoded);
    if (const auto* have = message ? std::get_if<HaveRecords>(message) : nullptr)
      keeper_->take(*have, sent.node);
    else
      office_.take(sent);
  }
  for (const LogEngine::Sent& sent : engine_->take_sent_votes())
    box_.take(replica_, sent.bytes, [&](uint32_t machine) { return office_.speaks_for(sent.node, machine); });
  if (!controls.empty()) note_names();  // of thousands of machines: not at each look
  tell_engine(engine_->log_state());
  is_open_ = keeper_->attend(now(), 2 * clock_.deadline()) && now() >= disk_again_;
  if (!is_open_) clock_.begin_anew(now());
}

void LooseNode::read_records(uint32_t rounds) {
  if (!is_open_) return;
  for (const Bytes& bytes : engine_->read(own_.tip().index)) {
    const Record record = own_.decode(bytes);
    if (record.type == RecordType::round && replica_.round() == rounds) return;
    try {
      append(record, bytes, StepLog::Sync::now);
    } catch (const UserError& error) {
      return wait_for_disk(error);
    }
    apply(record);
    if (in_.applied) in_.applied(bytes);
    box_.forget(replica_);
  }
}

/// Of those alone that the log has given a lane: anybody may propose numbers.
void LooseNode::note_names() {
  const RecentRounds& rounds = own_.log().chain().rounds();
  const auto note = [&](uint32_t machine) {
    const std::string* owner = names_.names().contains(machine) ? nullptr : office_.owner_of(machine);
    if (owner && !owner->empty()) names_.add(machine, *owner);
  };
  for (const auto& machine : rounds.roster())
    if (machine) note(*machine);
  std::ranges::for_each(rounds.former(), note);
  names_.write();
}

/// A kill in between leaves a log to replay, never weights without one.
void LooseNode::append(const Record& record, const Bytes& bytes, StepLog::Sync sync) {
  const bool is_round = record.type == RecordType::round;
  // Of the rosters before it; and a record that the disk did not take is none.
  RosterOffice::Silences silences;
  if (is_round) silences = office_.silences_behind(record, own_.log().chain().rounds());
  own_.append(record, bytes, sync);
  if (is_round) {
    office_.note(std::move(silences));
    packed_last_ = has_packed(record.round);
    if (has_joined_ && !record.roster.empty()) {
      note_names();
      tell_roster(record);
    }
  }
  in_.snapshots.know(record);
}

void LooseNode::wait_for_disk(const UserError& error) {
  in_.say(fmt::format("{}\nthis machine waits until that can be written", error.what()));
  disk_again_ = now() + kRetry;
  is_open_ = false;
}

/// A log without its beginning leads nowhere from there: its snapshots do.
void LooseNode::keep_start() {
  const std::filesystem::path& folder = in_.snapshots.folder();
  if (own_.log().first_index() > 0 || (!is_new_ && std::filesystem::exists(start_file(folder)))) return;
  try {
    tessera::keep_start(replica_, folder);
  } catch (const UserError& error) {
    in_.say(fmt::format("{}\nwithout it this machine cannot rebuild weights that differ before its first snapshot",
                        error.what()));
  }
}

void LooseNode::apply(const Record& record) {
  try {
    replica_.apply(in_.ctx, record);
  } catch (const UserError& error) {
    if (record.type == RecordType::round) throw;
    rebuild(record, error);
  }
  if (fault_point("weights", replica_.round())) *static_cast<float*>(in_.params.values.mutable_data()) += 0.25f;
}

/// A machine whose weights are not those that the log tells of rebuilds them; the record is compared again on the way,
/// and a second difference ends it.
void LooseNode::rebuild(const Record& doubted, const UserError& why) {
  const std::filesystem::path& folder = in_.snapshots.folder();
  const bool has_start = own_.log().first_index() == 0 && std::filesystem::exists(start_file(folder));
  const bool has_snapshot = !snapshot_rounds(folder).empty();
  ++rebuilt_;
  try {
    if (!has_start && !has_snapshot) throw UserError(why);
    in_.say(fmt::format("{}\nthis machine rebuilds its weights from {} and its log", why.what(),
                        has_snapshot ? "its newest snapshot" : "what the run began with"));
    if (has_start) load_start(in_.ctx, replica_, in_.params, folder);
    replay(in_.ctx, replica_, own_.log(), folder, rounds_in(own_.log()));
  } catch (const UserError& error) {
    throw UserError(error.where(), error.message(), error.hint() + "\n" + who_wrote(doubted));
  }
  in_.say("this machine's weights are those of the log again");
}

/// Of a record that may not be true.
std::string LooseNode::who_wrote(const Record& record) const {
  std::string text = "this machine's log stays as it is";
  if (record.type == RecordType::digest)
    text += fmt::format("; the DIGEST is of machine {}", machine_in_words(record.machine, names_.names()));
  if (record.signature)
    text += fmt::format("; it was signed with the key {}", in_.header.terms->signers.at(record.signature->key));
  return text;
}

void LooseNode::ask_for_lane() {
  if (!is_open_) return;
  if (had_lane_ && !lane())
    in_.say(
        fmt::format("machine {} has lost its lane: it was silent for too long, or node \"{}\" runs twice. It joins "
                    "anew",
                    desk_.machine(), in_.name));
  had_lane_ = lane().has_value();
  const auto owner_of = [this](uint32_t machine) {
    using Owner = MembershipDesk::Owner;
    if (!office_.is_owned(machine)) return Owner::nobody;
    if (office_.is_leaving(machine)) return Owner::another;  // it said that it leaves, before it was started again
    return office_.speaks_for(in_.name, machine) ? Owner::this_node : Owner::another;
  };
  try {
    desk_.ask(*engine_, replica_.recent(), now(), 3 * clock_.deadline(), owner_of);
  } catch (const UserError& error) {
    wait_for_disk(error);
  }
}

void LooseNode::leave() {
  desk_.leave(*engine_);
  wait();
}

bool LooseNode::publish_vote(const Vote& vote) {
  const Bytes message = encode(vote);
  try {
    desk_.note_vote(vote.seed_round, message);
  } catch (const UserError& error) {
    wait_for_disk(error);
    return false;
  }
  engine_->publish_vote(message);
  vote_sent_ = now();
  return true;
}

void LooseNode::repeat_vote() {
  const Bytes* message = desk_.vote_of(replica_.round());
  if (!message || !is_open_ || !lane()) return;
  const Seconds patience = std::clamp(clock_.deadline(), Seconds(1), Seconds(10));
  if (vote_sent_ && now() - *vote_sent_ < patience) return;
  engine_->publish_vote(*message);
  vote_sent_ = now();
}

bool LooseNode::publish(Record record) {
  if (lost_a_race_) record.flags |= kHadConflict;
  const auto done = engine_->append(own_.tip().index, signer_.encode(record));
  conflicts_ += done == LogEngine::Append::conflict;
  if (done != LogEngine::Append::unknown) lost_a_race_ = done == LogEngine::Append::conflict;
  return done == LogEngine::Append::won;
}

void LooseNode::publish_and_read(const Record& record) {
  if (!publish(record)) return;
  for (int k = 0; k < 100 && own_.tip().index <= record.index; ++k) {
    attend();
    read_records(replica_.round());
    if (own_.tip().index <= record.index) wait();
  }
}

bool LooseNode::may_pack() const {
  return is_open_ && !own_.has_ended() && in_.spsa.loose.packs != "false" && signer_.may_sign() &&
         engine_->log_state().may_pack;
}

int64_t LooseNode::place() const {
  const Roster& roster = replica_.roster();
  const auto mine = lane();
  return tessera::lanes_taken(mine ? Roster(roster.begin(), roster.begin() + *mine) : roster);
}

void LooseNode::tell_engine(const LogEngine::LogState& state) {
  // A record that had its place may have been lost with it, unread.
  if (state.connections != connections_ || state.losses != losses_) packed_.reset();
  connections_ = state.connections;
  losses_ = state.losses;
  if (state.reachable == !is_away_) return;
  is_away_ = !state.reachable;
  in_.say(is_away_ ? "the server does not answer: this machine waits, and tries again" : "the server answers again");
}

void LooseNode::tell_roster(const Record& record) const {
  for (const RosterChange& change : record.roster) {
    const bool is_mine = change.machine == desk_.machine();
    in_.say(fmt::format("step {}: {} {} {} lane {}", int64_t{record.round} + 1, is_mine ? "this machine," : "machine",
                        machine_in_words(change.machine, names_.names()), change.add ? "has" : "leaves", change.lane));
  }
}

void LooseNode::wait_for_owners() {
  const RecentRounds& rounds = own_.log().chain().rounds();
  std::set<uint32_t> machines = rounds.former();
  for (const auto& machine : rounds.roster())
    if (machine) machines.insert(*machine);
  // A server that has lost them says nothing: this machine's present number is its own all the same.
  for (int k = 0; k < 100; ++k) {
    if (std::ranges::all_of(machines, [&](uint32_t machine) { return office_.is_owned(machine); })) return;
    wait();
    attend();
  }
}

int64_t LooseNode::votes_in_log() {
  wait_for_owners();
  const StepLog& log = own_.log();
  RecentRounds before = log.start().rounds();
  int64_t votes = 0;
  const auto count = [&](const std::vector<bool>& present, const Roster& roster, uint8_t m) {
    for (size_t lane = 0; lane < std::min(present.size(), roster.size()); ++lane)
      if (present[lane] && roster[lane] &&
          (office_.is_owner(in_.name, *roster[lane]) || desk_.machine() == *roster[lane]))
        votes += m;
  };
  log.for_each(log.first_index(), [&](const Record& record, std::span<const std::byte>) {
    if (record.type != RecordType::round) return true;
    count(record.present, before.roster_behind(record), record.m);
    for (const ExtraGroup& group : record.extra)
      if (const Roster* roster = before.roster_of(group.seed_round)) count(group.present, *roster, record.m);
    before.accept(record);
    return true;
  });
  return votes;
}

/// How a node stands among others with equally long logs: by its lane, and those without one behind them.
int64_t LooseNode::rank_of(const std::string& node) const {
  const Roster& roster = replica_.roster();
  for (size_t lane = 0; lane < roster.size(); ++lane)
    if (roster[lane] && office_.speaks_for(node, *roster[lane])) return static_cast<int64_t>(lane);
  return static_cast<int64_t>(roster.size());
}

}  // namespace tessera

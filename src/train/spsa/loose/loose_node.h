#pragma once
// One machine of a run whose machines have nothing but a log engine in common: its weights, its log, what it has heard
// of the others, and its place among them.

#include "core/error.h"
#include "kernels/compute.h"
#include "train/spsa/loose/membership_desk.h"
#include "train/spsa/loose/node_names.h"
#include "train/spsa/loose/own_log.h"
#include "train/spsa/loose/record_signer.h"
#include "train/spsa/loose/roster_office.h"
#include "train/spsa/loose/round_clock.h"
#include "train/spsa/loose/stream_keeper.h"
#include "train/spsa/snapshots.h"
#include "train/spsa/spsa_config.h"
#include "train/spsa/vote_box.h"

namespace tessera {

class LooseNode {
 public:
  /// All outlive the node.
  struct Inputs {
    const Context& ctx;
    const RunHeader& header;
    FlatParams& params;
    const SpsaConfig& spsa;
    const std::string& name;         // of this node at the engine
    const std::string& run_name;     // of the run there
    std::filesystem::path run, log;  // folders: of the run and of its log
    Snapshots& snapshots;
    std::function<void(const std::string&)> say;
    std::function<bool()> is_asked_to_stop;
    std::function<void(const Bytes&)> applied{};  // a record, since join(); may be empty
  };
  /// Opens the own log. The engine has taken the run's header: one that is refused leaves no folder behind.
  /// @throws UserError when the folder is of another run, or of another name at the engine
  LooseNode(Inputs in, std::unique_ptr<LogEngine>);

  /// Follows the own log, and then the engine's, until nothing more is there, or that is the shorter one.
  /// @throws UserError for a fork, a poisoned log, or a machine that is to pack and may not
  void join();
  /// The own log had no records when it was opened.
  bool is_new() const { return is_new_; }

  /// Takes what has come. Changes no weights: it is also called between the probes of a round.
  void attend();
  /// Takes new records, first to disk, then to the weights, up to so many rounds.
  void read_records(uint32_t rounds);
  void wait() { engine_->wait(std::chrono::milliseconds(50)); }
  void ask_for_lane();
  void leave();

  /// Noted on the disk, then sent. @return false, with nothing sent, while the disk takes nothing
  bool publish_vote(const Vote&);
  /// Sends the present round's vote again, where it seems to be lost: with an engine that went away, or with a process
  /// that was killed. Without it a quorum could be waited for that never comes, as nobody votes in a round twice.
  void repeat_vote();
  /// Offers a record for the next place in the log. @return whether it got it; of an append without an answer nothing
  /// is known: it is repeated, or the record is read
  bool publish(Record);
  /// The same, and waits for it to come back, a while.
  void publish_and_read(const Record&);

  Record head(RecordType type) const { return record_head(replica_, run_, own_.tip(), type); }
  /// Whether this machine may vote, and write records, now.
  bool is_open() const { return is_open_; }
  bool may_pack() const;
  bool packed_last() const { return packed_last_; }
  /// The record of that round will be this machine's, if it gets the place.
  void note_packed(uint32_t round) { packed_ = round; }
  bool has_packed(uint32_t round) const { return packed_ == std::optional(round); }
  /// All that the engine is known to hold is in the own log.
  bool is_level() const { return engine_->log_state().records == own_.tip().index; }
  int64_t lanes_taken() const { return tessera::lanes_taken(replica_.roster()); }
  /// This machine's place among those with a lane: who packs first. One without a lane comes last.
  int64_t place() const;
  std::optional<uint32_t> lane() const { return desk_.lane(replica_.recent()); }

  /// Until the disk takes what has to be kept, this machine neither votes nor packs; it is one that is silent.
  void wait_for_disk(const UserError&);
  void say(const std::string& text) const { in_.say(text); }
  Replica& replica() { return replica_; }
  const Replica& replica() const { return replica_; }
  OwnLog& own() { return own_; }
  VoteBox& box() { return box_; }
  RoundClock& clock() { return clock_; }
  const MembershipDesk& desk() const { return desk_; }
  const RunId& run() const { return run_; }
  const LogEngine::Traffic& traffic() const { return engine_->traffic(); }
  std::vector<RosterChange> roster_changes() const { return office_.changes(replica_.recent()); }
  int64_t conflicts() const { return conflicts_; }
  int64_t reseeds() const { return keeper_->reseeds(); }
  /// Votes, a byte each, that the own log holds of this node's machines, whatever numbers they had. Waits a while until
  /// the engine has told whose all numbers are.
  int64_t votes_in_log();
  /// How often weights were rebuilt, since they were not those that the log tells of.
  int64_t rebuilt() const { return rebuilt_; }

 private:
  void wait_for_owners();
  void tell_engine(const LogEngine::LogState&);
  void tell_roster(const Record&) const;
  void note_names();
  void follow_engine();
  void require_packer() const;
  void catch_up();
  void append(const Record&, const Bytes&, StepLog::Sync);
  void apply(const Record&);
  void keep_start();
  void rebuild(const Record& doubted, const UserError& why);
  std::string who_wrote(const Record&) const;
  int64_t rank_of(const std::string& node) const;

  Inputs in_;
  RunId run_;
  Replica replica_;
  OwnLog own_;
  MembershipDesk desk_;
  RosterOffice office_;
  NodeNames names_;
  VoteBox box_;
  RoundClock clock_;
  RecordSigner signer_;
  std::unique_ptr<LogEngine> engine_;
  std::optional<StreamKeeper> keeper_;
  std::optional<RoundClock::Clock::time_point> vote_sent_;
  std::optional<uint32_t> packed_;              // round of the record offered last
  RoundClock::Clock::time_point disk_again_{};  // when a disk that was full is tried again
  int64_t conflicts_ = 0, rebuilt_ = 0;
  int64_t connections_ = 0, losses_ = 0;  // of the engine, when it was looked at last
  bool is_new_ = false, has_joined_ = false, is_away_ = false;
  bool is_open_ = false, packed_last_ = false, lost_a_race_ = false, had_lane_ = false;
};

}  // namespace tessera

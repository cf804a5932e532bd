#include "train/spsa/loose/stream_keeper.h"

#include "core/error.h"

namespace tessera {
namespace {

constexpr RoundClock::Seconds kMoment{1};        // between the last record that an engine lost and the RESEED behind it
constexpr RoundClock::Seconds kReconnecting{3};  // until all are back behind a server that was away for a short while
constexpr RoundClock::Seconds kPatience{5};      // with a machine that told what it has and tells it no more
constexpr RoundClock::Seconds kLongest{20};      // with machines that tell of more, and do not fill it

[[noreturn]] void throw_fork(uint64_t index, uint64_t theirs, uint64_t mine) {
  throw UserError(fmt::format("record {}", index),
                  fmt::format("the engine's ({:016x}) is not mine ({:016x})", theirs, mine),
                  "spsa.on_fork = \"follow\" takes the engine's chain, and what only this machine has is lost");
}

}  // namespace

uint64_t StreamKeeper::hash_behind(uint64_t records) const {
  if (records == in_.log.size()) return in_.log.chain().prev();
  uint64_t hash = 0;  // of a log without records
  if (records > 0)
    in_.log.for_each(records - 1, [&](const Record&, std::span<const std::byte> encoded) {
      hash = chain_hash(encoded);
      return false;
    });
  return hash;
}

void StreamKeeper::require_one_chain(uint64_t there) const {
  // Records name the one before by its hash: where the last that both have is equal, all before it are.
  const uint64_t common = std::min(there, in_.log.size());
  if (common == 0 || common <= in_.log.first_index()) return;
  const auto theirs = in_.engine.read(common - 1);
  if (theirs.empty()) return;  // gone while it was looked at: attend() comes again
  const uint64_t hash = chain_hash(theirs.front()), mine = hash_behind(common);
  if (hash != mine) throw_fork(common - 1, hash, mine);
}

bool StreamKeeper::attend(Time now, RoundClock::Seconds quiet) {
  now_ = now;
  const LogEngine::LogState state = in_.engine.log_state();
  if (state.connections != connections_ || state.losses != losses_) {
    connections_ = state.connections;
    losses_ = state.losses;
    compared_ = false;
    short_since_.reset();
    filled_since_.reset();
    told_have_.reset();
    others_.clear();
  }
  if (state.fork)
    throw UserError(fmt::format("record {}", *state.fork), "the engine holds two records of this number that differ",
                    "remove its stream and start the machine with the longest log first");
  if (!state.reachable || !state.complete) return false;
  if (!compared_) require_one_chain(state.records);
  compared_ = true;
  if (state.records >= in_.log.size()) {
    if (!short_since_) return true;
    // Who filled it writes a RESEED next. It is given a moment, so that the log tells what happened.
    if (!filled_since_) filled_since_ = now;
    if (now - *filled_since_ < kMoment) return false;
    require_one_chain(state.records);  // it was filled by others, who may not have had all that this machine has
    end_reseeding(state.records);
    return true;
  }
  filled_since_.reset();
  if (!short_since_) {
    short_since_ = now;
    in_.say(fmt::format("the engine's log has {} records, this machine's {}: the longest log fills it again",
                        state.records, in_.log.size()));
    if (!holds(state.records))
      in_.say(fmt::format("this machine's begins with record {}: one whose log is whole has to fill it",
                          in_.log.first_index()));
  }
  // Whoever cannot fill it has no say in who does.
  if (!holds(state.records) || !state.may_pack) return false;
  quiet = std::max(quiet, kReconnecting);
  tell_have(now);
  const RoundClock::Seconds waited = now - *short_since_;
  if (waited >= quiet && (has_the_word(now, quiet) || waited >= 4 * quiet + kLongest)) fill();
  return false;
}

void StreamKeeper::tell_have(Time now) {
  if (told_have_ && now - *told_have_ < std::chrono::milliseconds(500)) return;  // it may be lost: it is said again
  told_have_ = now;
  in_.engine.publish_control(encode(HaveRecords{in_.log.run().prefix(), in_.log.size(), in_.log.chain().prev()}));
}

void StreamKeeper::take(const HaveRecords& have, const std::string& node) {
  if (node == in_.node || have.run != in_.log.run().prefix()) return;
  others_[node] = {have, now_};
  // Nothing can be compared: it has none, more than this machine, or only such as were dropped here.
  if (have.records == 0 || have.records > in_.log.size() || !holds(have.records - 1)) return;
  const uint64_t mine = hash_behind(have.records);
  if (have.prev == mine) return;
  others_.erase(node);
  // Said once: anybody may send such a message, and a machine whose log is another finds that out by the engine's.
  if (doubted_.insert(node).second)
    in_.say(fmt::format("node \"{}\" tells of another record {} ({:016x}) than this machine's ({:016x})", node,
                        have.records - 1, have.prev, mine));
}

bool StreamKeeper::has_the_word(Time now, RoundClock::Seconds quiet) {
  // It is told twice a second as long as a machine lives. For one that was killed meanwhile nobody may wait for ever.
  std::erase_if(others_, [&](const auto& other) { return now - other.second.at > std::max(quiet, kPatience); });
  for (const auto& [node, heard] : others_) {
    const HaveRecords& have = heard.have;
    if (have.records > in_.log.size()) return false;
    if (have.records == in_.log.size() && in_.rank(node) < in_.rank(in_.node)) return false;
  }
  return true;
}

void StreamKeeper::fill() {
  LogEngine::LogState state = in_.engine.log_state();
  bool goes_on = true;
  in_.log.for_each(state.records, [&](const Record& record, std::span<const std::byte> encoded) {
    goes_on = in_.engine.append(record.index, encoded) == LogEngine::Append::won;
    return goes_on;
  });
  if (!goes_on) return;  // another fills it, or the connection is gone: looked at again
  if (in_.engine.append(in_.log.size(), in_.reseed()) != LogEngine::Append::won) return;
  ++reseeds_;
  end_reseeding(in_.log.size() + 1);
}

void StreamKeeper::end_reseeding(uint64_t records) {
  in_.say(fmt::format("the engine's log is whole again, with {} records", records));
  short_since_.reset();
  filled_since_.reset();
}

}  // namespace tessera

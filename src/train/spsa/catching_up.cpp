// Two ways to come to one log and one state.
//   ranks of a job    lengths are compared; the rank with the longest log sends what the others lack, replays it,
//                     and sends them the state that it leads to
//   a shared folder   records go from the shared log to mine or the other way, and each process replays its own
// A log never loses records here: what is longer is believed, since records are chained and the shorter is its
// beginning.

#include "train/spsa/catching_up.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "comm/stop_together.h"
#include "core/error.h"

namespace tessera {
namespace {

constexpr uint64_t kRun = 4096;  // records that are handed over at once

ChainTip tip_of(const StepLog& log) { return {log.size(), log.chain().prev()}; }

/// Where the holder's log begins. A log that ends before, among rounds that the holder dropped,
/// begins there too from now on.
uint64_t send_start(const Replicated& mine, int holder) {
  const bool sends = mine.world.rank() == holder;
  const uint64_t index = broadcast_value(mine.world, sends ? mine.log->first_index() : 0, holder);
  std::vector<std::byte> state = sends ? mine.log->start_state() : std::vector<std::byte>();
  mine.world.broadcast(state, holder);
  // Its own records would be followed by a gap.
  if (mine.log && mine.log->size() < index) mine.log->begin_at(state);
  return index;
}

/// Records [index, end), each with its length in front.
std::vector<std::byte> records_of(const StepLog& log, uint64_t index, uint64_t end) {
  std::vector<std::byte> run;
  log.for_each(index, [&](const Record& record, std::span<const std::byte> encoded) {
    if (record.index >= end) return false;
    const auto length = static_cast<uint32_t>(encoded.size());
    const auto* raw = reinterpret_cast<const std::byte*>(&length);
    run.insert(run.end(), raw, raw + sizeof(length));
    run.insert(run.end(), encoded.begin(), encoded.end());
    return true;
  });
  return run;
}

/// Hands records [index, end) to ranks whose logs lack some of them.
void send_records(const Replicated& mine, int holder, uint64_t index, uint64_t end) {
  // All ranks have to know whether anything is sent: broadcasts are collective, also for those who lack nothing.
  std::array<double, 1> lacking{mine.log && mine.log->size() < end ? 1.0 : 0.0};
  mine.world.all_reduce_max(std::span<double>(lacking));
  if (lacking[0] == 0) return;
  std::vector<std::byte> run;
  if (mine.world.rank() == holder) run = records_of(*mine.log, index, end);
  mine.world.broadcast(run, holder);
  for (std::span<const std::byte> rest(run); !rest.empty(); ++index) {
    uint32_t length = 0;
    std::memcpy(&length, rest.data(), sizeof(length));
    // A log takes the record that it lacks next; what it holds already is passed over.
    if (mine.log && mine.log->size() == index) mine.log->append(rest.subspan(sizeof(length), length));
    rest = rest.subspan(sizeof(length) + length);
  }
}

}  // namespace

ChainTip catch_up_with_ranks(const Replicated& mine) {
  const uint64_t records = mine.log ? mine.log->size() : 0;
  std::vector<uint64_t> sizes;
  for (const auto& bytes : mine.world.all_gather(std::as_bytes(std::span(&records, 1))))
    std::memcpy(&sizes.emplace_back(), bytes.data(), sizeof(uint64_t));
  // Of logs of equal length the first rank's: every rank chooses the same one by itself.
  const auto holder = static_cast<int>(std::max_element(sizes.begin(), sizes.end()) - sizes.begin());
  const uint64_t size = sizes[static_cast<size_t>(holder)];
  if (size == 0) return {};
  for (uint64_t begin = send_start(mine, holder); begin < size; begin += kRun)
    send_records(mine, holder, begin, std::min(size, begin + kRun));
  std::vector<std::byte> state;
  bool is_left = false;
  try {
    // Only the holder replays. The others take the state that it leads to, which costs a broadcast in place of a
    // replay.
    if (mine.world.rank() == holder) {
      replay(mine.ctx, mine.replica, *mine.log, mine.snapshots, rounds_in(*mine.log));
      state = mine.replica.pack();
    }
  } catch (const Stopped&) {
    is_left = true;
  }
  // Whether it was left is known to the holder alone: all ranks leave, or none.
  leave_together(mine.world, is_left, "replaying");
  mine.world.broadcast(state, holder);
  if (mine.world.rank() != holder) mine.replica.unpack(state);
  return broadcast_value(mine.world, mine.log ? tip_of(*mine.log) : ChainTip{}, holder);
}

ChainTip catch_up_with_folder(const Replicated& mine, LogEngine& engine, const std::filesystem::path& shared) {
  StepLog& log = *mine.log;
  // First from the shared log to mine...
  uint64_t there = log.first_index();
  for (const Bytes& record : engine.read(there)) {
    if (there >= log.size()) log.append(record);
    ++there;
  }
  // ...then the other way, when mine is the longer one: the shared folder may have lost its end, or be a new one.
  if (there < log.size())
    log.for_each(there, [&](const Record& record, std::span<const std::byte> encoded) {
      if (engine.append(record.index, encoded) == LogEngine::Append::conflict && record.index == log.first_index() &&
          record.index > 0)
        throw UserError(
            shared.string(),
            fmt::format("the shared log lacks the records before number {}, which were dropped here", record.index),
            "put it back, or start the machine whose log is whole first");
      return true;
    });
  replay(mine.ctx, mine.replica, log, mine.snapshots, rounds_in(log));
  return tip_of(log);
}

}  // namespace tessera

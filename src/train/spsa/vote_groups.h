#pragma once
// From the bytes of a record to integer sums: votes are read, clipped and put together as the kernels take them. All of
// it is in integers, so that no order of machines can show.

#include <algorithm>
#include <span>
#include <vector>

#include "kernels/votes.h"
#include "steplog/recent_rounds.h"
#include "steplog/record.h"
#include "train/spsa/run_header.h"

namespace tessera {

/// Votes of one seed round, as a record has them.
struct Ballots {
  uint32_t seed_round;
  float alpha;
  const std::vector<bool>& present;  // [lanes]
  std::span<const uint8_t> bytes;    // [lanes present · probes · bytes of a probe], ascending lane
  const Roster& roster;              // of that seed round
  int unit;                          // in which these votes were counted
};

/// Votes are kept decoded: a group may wait until many rounds are applied together.
struct Group {  // storage behind a VoteGroup
  std::vector<VoteTerm> votes;
  std::vector<int32_t> transformed;
  VoteGroup view;
  int unit = 0;  // of its ballots
};

struct VoteCounts {
  int64_t votes = 0, valid = 0;
  int64_t counted = 0;                  // what N counts: valid votes, or with robust aggregates probes that have one
  std::vector<uint32_t> clipped_lanes;  // one for each vote that was cut: whose it was
  double squares = 0;                   // of the valid votes, as gradients
  int64_t clipped() const { return std::ssize(clipped_lanes); }
};

/// The votes of a round's record: its own first, then those that came late, with the rosters and units of their rounds.
/// In logs of format 1 these are of the lanes of today.
/// @param before  rounds behind the record before
/// @param behind  the roster behind this one; like the other two it outlives the result
std::vector<Ballots> ballots_of(const Record&, const RecentRounds& before, const Roster& behind);

/// Groups of at most 8192 votes (of float32 votes 128), in the order of lanes and probes; with Hadamard lanes one for
/// each K votes; with a robust aggregate one of the probes' values. At least one, also where nobody voted.
///   limit = clip · lower median of |v| over the group's votes, of format 2 over those that are not 0; from 8 votes on
std::vector<Group> groups_of(const RunHeader&, const Ballots&, VoteCounts&);

/// VoteCounts::counted of the bytes of one seed round's ballots. @param m  bytes of a lane
int64_t counted_votes(const RunHeader&, std::span<const uint8_t> bytes, size_t m);

/// The order of the values does not matter. There is one at least.
template <class T> T lower_median(std::vector<T> values) {
  const auto middle = values.begin() + static_cast<int64_t>((values.size() - 1) / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

}  // namespace tessera

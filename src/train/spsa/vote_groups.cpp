#include "train/spsa/vote_groups.h"

#include <cmath>

#include "core/error.h"
#include "train/spsa/vote_codec.h"

namespace tessera {
namespace {

constexpr size_t kMostByteVotes = 8192;  // of a group: |sum| stays below 2^31, since a byte's value is below 2^18
// Of 2^23 at most each: their sum stays within 2^30.
constexpr size_t kMostFloatVotes = 128;
constexpr size_t kFewestClipped = 8;  // the median of fewer votes says little

size_t most_votes(const RunHeader& header) {
  if (header.family == Family::hadamard) return static_cast<size_t>(header.lanes);
  return header.votes == VoteKind::float32 ? kMostFloatVotes : kMostByteVotes;
}

struct DrawnVote {
  Direction z;
  uint32_t lane;
  std::optional<int32_t> value;  // nothing: invalid
};

/// Bytes stand for the lanes that are present alone, in ascending order.
std::vector<DrawnVote> read(const RunHeader& header, const Ballots& ballots) {
  const auto width = static_cast<size_t>(header.bytes_per_probe());
  const auto present = static_cast<size_t>(std::ranges::count(ballots.present, true));
  std::vector<DrawnVote> votes;
  if (present == 0) return votes;
  const size_t probes = ballots.bytes.size() / width / present;
  auto bytes = ballots.bytes;
  for (uint32_t lane = 0; lane < ballots.present.size(); ++lane) {
    if (!ballots.present[lane]) continue;
    TS_CHECK(lane < ballots.roster.size() && ballots.roster[lane], "a vote of lane {}, which nobody has", lane);
    for (size_t s = 0; s < probes; ++s, bytes = bytes.subspan(width))
      votes.push_back({direction_of(header, ballots.seed_round, *ballots.roster[lane], lane, static_cast<uint16_t>(s)),
                       lane, read_vote(header, bytes.first(width))});
  }
  return votes;
}

/// @param unit  of the votes
void count(std::span<const DrawnVote> votes, int unit, VoteCounts& counts) {
  double squares = 0;
  for (const DrawnVote& vote : votes) {
    ++counts.votes;
    // An invalid vote counts as told, and moves nothing.
    if (!vote.value) continue;
    ++counts.valid;
    squares += static_cast<double>(*vote.value) * *vote.value;
  }
  counts.squares += std::ldexp(squares, -2 * unit);
}

/// A single wild loss may not move the weights alone: votes are cut at a multiple of the group's median.
/// @param lanes  of the votes
void clip(const RunHeader& header, std::span<VoteTerm> votes, std::span<const uint32_t> lanes, VoteCounts& counts) {
  if (header.clip == 0 || votes.size() < kFewestClipped) return;
  // Integers and their lower median: no order of machines and no rounding can show in the limit.
  std::vector<int64_t> magnitudes;
  for (const VoteTerm& vote : votes)
    // Where most votes are 0, a median over all would be 0, and cut every vote to that.
    if (header.format() == 1 || vote.value != 0) magnitudes.push_back(std::abs(int64_t{vote.value}));
  if (magnitudes.empty()) return;
  const int64_t limit = header.clip * lower_median(std::move(magnitudes));
  for (size_t v = 0; v < votes.size(); ++v) {
    int32_t& value = votes[v].value;
    if (std::abs(int64_t{value}) <= limit) continue;
    value = static_cast<int32_t>(value > 0 ? limit : -limit);
    counts.clipped_lanes.push_back(lanes[v]);
  }
}

/// Keeps the sum of a Hadamard group of float32 votes, which cannot be cut by count, within 31 bits.
void bound(const RunHeader& header, std::span<VoteTerm> votes, std::span<const uint32_t> lanes, VoteCounts& counts) {
  if (votes.size() <= kMostFloatVotes || header.votes != VoteKind::float32) return;
  // So small that even equal signs everywhere keep the sum in 31 bits.
  const auto limit = static_cast<int32_t>(INT32_MAX / static_cast<int64_t>(votes.size()));
  for (size_t v = 0; v < votes.size(); ++v) {
    const int32_t kept = std::clamp(votes[v].value, -limit, limit);
    if (kept != votes[v].value) counts.clipped_lanes.push_back(lanes[v]);
    votes[v].value = kept;
  }
}

/// What the kernels ask of a group beside its votes. @param number  of the group among those of its ballots
void finish(const RunHeader& header, const Ballots& ballots, uint32_t number, Group& group) {
  group.unit = ballots.unit;
  VoteGroup& view = group.view;
  view.seed = header.seed;
  view.round = header.family == Family::pool ? 0 : ballots.seed_round;
  view.alpha = ballots.alpha;
  // Lane k is a row of the Hadamard matrix H times one common sign vector: Σ_k v_k z_k = (H v) · signs. One transform
  // of the votes, and an update costs a single direction however many voted.
  if (header.family != Family::hadamard) return;
  group.transformed.assign(static_cast<size_t>(header.lanes), 0);
  for (const VoteTerm& vote : group.votes) group.transformed[vote.machine] += vote.value;
  hadamard_transform(group.transformed);
  view.signs = {.seed = header.seed,
                .round = ballots.seed_round,
                .machine = kHadamardStream,
                .sample = static_cast<uint16_t>(number)};
}

std::vector<Group> summed_groups(const RunHeader& header, const Ballots& ballots, std::span<const DrawnVote> votes,
                                 VoteCounts& counts) {
  const bool hadamard = header.family == Family::hadamard;
  const size_t most = most_votes(header);
  std::vector<Group> groups;
  Group group;
  std::vector<uint32_t> lanes;  // of its votes
  uint32_t number = 0;
  size_t place = 0;
  const auto close = [&](uint32_t next) {
    clip(header, group.votes, lanes, counts);
    bound(header, group.votes, lanes, counts);
    finish(header, ballots, number, group);
    groups.push_back(std::move(group));
    group = {};
    lanes.clear();
    number = next;
    place = 0;
  };
  for (const DrawnVote& vote : votes) {
    // A Hadamard group is the one its lanes belong to; other groups are cut by count.
    if (hadamard ? vote.z.sample != number : place == most) close(hadamard ? vote.z.sample : number + 1);
    ++place;
    if (!vote.value) continue;
    lanes.push_back(vote.lane);
    // A Hadamard vote is known by its lane alone; the group has one direction of signs for all of them.
    group.votes.push_back(hadamard ? VoteTerm{vote.z.lane, 0, *vote.value}
                                   : VoteTerm{vote.z.machine, vote.z.sample, *vote.value});
  }
  // Also where nobody voted: the first group carries the round's decay.
  close(number);
  return groups;
}

int32_t median_of(std::vector<int32_t> values) {
  std::ranges::sort(values);
  return values[(values.size() - 1) / 2] + values[values.size() / 2];
}

int32_t trimmed_of(std::vector<int32_t> values, int64_t percent) {
  std::ranges::sort(values);
  const auto count = static_cast<int64_t>(values.size()), cut = count * percent / 100;
  int64_t sum = 0;
  for (int64_t i = cut; i < count - cut; ++i) sum += values[static_cast<size_t>(i)];
  return static_cast<int32_t>(2 * sum / (count - 2 * cut));  // towards zero
}

/// One value a probe, of what all machines found along its direction.
Group robust_group(const RunHeader& header, const Ballots& ballots, std::span<const DrawnVote> votes,
                   VoteCounts& counts) {
  std::vector<VoteTerm> terms;
  std::vector<uint32_t> lanes;
  for (const DrawnVote& vote : votes) {
    if (!vote.value) continue;
    terms.push_back({vote.z.machine, vote.z.sample, *vote.value});
    lanes.push_back(vote.lane);
  }
  // Limits are of as many votes as elsewhere, before machines are compared.
  for (size_t begin = 0; begin < terms.size(); begin += most_votes(header)) {
    const size_t count = std::min(most_votes(header), terms.size() - begin);
    clip(header, std::span(terms).subspan(begin, count), std::span(lanes).subspan(begin, count), counts);
  }
  std::vector<std::vector<int32_t>> probes;
  for (const VoteTerm& term : terms) {
    if (probes.size() <= term.sample) probes.resize(term.sample + size_t{1});
    probes[term.sample].push_back(term.value);
  }
  Group group;
  for (size_t s = 0; s < probes.size(); ++s) {
    if (probes[s].empty()) continue;
    const int32_t value = header.terms->aggregate == Aggregate::median
                              ? median_of(std::move(probes[s]))
                              : trimmed_of(std::move(probes[s]), header.terms->trim_percent);
    group.votes.push_back({kSharedStream, static_cast<uint16_t>(s), value});
  }
  finish(header, ballots, 0, group);
  return group;
}

}  // namespace

std::vector<Ballots> ballots_of(const Record& record, const RecentRounds& before, const Roster& behind) {
  std::vector<Ballots> all;
  const auto add = [&](uint32_t seed_round, const auto& votes, const Roster& roster, int unit) {
    all.push_back({.seed_round = seed_round,
                   .alpha = votes.alpha,
                   .present = votes.present,
                   .bytes = votes.bytes,
                   .roster = roster,
                   .unit = unit});
  };
  add(record.seed_round, record, behind, before.unit());
  for (const ExtraGroup& late : record.extra) {
    const Roster* roster = before.roster_of(late.seed_round);
    add(late.seed_round, late, roster ? *roster : behind, roster ? before.unit_of(late.seed_round) : before.unit());
  }
  return all;
}

std::vector<Group> groups_of(const RunHeader& header, const Ballots& ballots, VoteCounts& counts) {
  const std::vector<DrawnVote> votes = read(header, ballots);
  const int64_t valid_before = counts.valid;
  count(votes, header.unit_of(ballots.unit), counts);
  if (!header.is_robust()) {
    counts.counted += counts.valid - valid_before;
    return summed_groups(header, ballots, votes, counts);
  }
  std::vector<Group> groups;
  groups.push_back(robust_group(header, ballots, votes, counts));
  counts.counted += static_cast<int64_t>(groups.front().votes.size());
  return groups;
}

int64_t counted_votes(const RunHeader& header, std::span<const uint8_t> bytes, size_t m) {
  if (!header.is_robust()) return valid_votes(header, bytes);
  const auto width = static_cast<size_t>(header.bytes_per_probe());
  int64_t probes = 0;
  for (size_t s = 0; s + width <= m; s += width) {
    bool valid = false;
    for (size_t lane = 0; lane + m <= bytes.size(); lane += m)
      valid = valid || read_vote(header, bytes.subspan(lane + s, width)).has_value();
    probes += valid;
  }
  return probes;
}

}  // namespace tessera

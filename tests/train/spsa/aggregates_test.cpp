// Robust aggregates: what the votes of all machines for one probe become.

#include <gmock/gmock.h>

#include "core/minifloat.h"
#include "train/spsa/replicas.h"

namespace tessera {
namespace {

using namespace test;

RunHeader header_with(Aggregate aggregate, int64_t percent = 25) {
  OwnPool own;
  RunHeader h = header_of(own, Family::shared);
  h.m = 2;
  h.terms.emplace();
  h.terms->aggregate = aggregate;
  h.terms->trim_percent = percent;
  return h;
}

/// The integer that each of two probes' directions gets. @param votes  a lane each: the bytes of its two probes
std::vector<int32_t> sums(const RunHeader& h, const std::vector<std::array<uint8_t, 2>>& votes, VoteCounts& counts) {
  Roster roster;
  std::vector<uint8_t> bytes;
  for (size_t lane = 0; lane < votes.size(); ++lane) {
    roster.emplace_back(static_cast<uint32_t>(lane));
    bytes.insert(bytes.end(), votes[lane].begin(), votes[lane].end());
  }
  const std::vector<bool> present(votes.size(), true);
  const auto groups = groups_of(
      h, {.seed_round = 0, .alpha = 1, .present = present, .bytes = bytes, .roster = roster, .unit = 9}, counts);
  EXPECT_EQ(groups.size(), 1u);
  EXPECT_EQ(counted_votes(h, bytes, 2), counts.counted);
  std::vector<int32_t> sum(2);
  for (const VoteTerm& vote : groups.front().votes) sum[vote.sample] += vote.value;
  return sum;
}

std::vector<int32_t> sums(const RunHeader& h, const std::vector<std::array<uint8_t, 2>>& votes) {
  VoteCounts counts;
  return sums(h, votes, counts);
}

TEST(Aggregates, OfTheWorkedExample) {
  using testing::ElementsAre;
  const std::vector<std::array<uint8_t, 2>> votes = {{0x01, 0x81}, {0x0a, 0x8a}, {0x03, 0x83}, {0x02, 0x82}};
  EXPECT_THAT(sums(header_with(Aggregate::sum), votes), ElementsAre(16, -16));
  EXPECT_THAT(sums(header_with(Aggregate::median), votes), ElementsAre(5, -5));
  EXPECT_THAT(sums(header_with(Aggregate::trimmed), votes), ElementsAre(5, -5));
  EXPECT_THAT(sums(header_with(Aggregate::trimmed, 0), votes), ElementsAre(8, -8)) << "twice the mean of four";
}

TEST(Aggregates, OfOddAndOfInvalidVotes) {
  using testing::ElementsAre;
  VoteCounts counts;
  // The second probe has one valid vote of three; invalid ones take no part.
  const std::vector<std::array<uint8_t, 2>> votes = {{0x05, 0x80}, {0x01, 0x07}, {0x09, 0x80}};
  EXPECT_THAT(sums(header_with(Aggregate::median), votes, counts), ElementsAre(10, 14));
  EXPECT_EQ(counts.votes, 6);
  EXPECT_EQ(counts.valid, 4);
  EXPECT_EQ(counts.counted, 2) << "probes with a valid vote";
  // Halves towards zero: the mean of 1, 2, 2 is 5/3, in half units 10/3.
  EXPECT_THAT(sums(header_with(Aggregate::trimmed, 0), {{0x01, 0x81}, {0x02, 0x82}, {0x02, 0x82}}), ElementsAre(3, -3));
}

TEST(Aggregates, TakeTheSameStepWhereVotesAgree) {
  std::string expected;
  for (const Aggregate aggregate : {Aggregate::sum, Aggregate::median, Aggregate::trimmed}) {
    OwnPool own;
    const RunHeader h = header_with(aggregate);
    Replica replica(h, own.params());
    const OwnContext context;
    std::map<uint32_t, Vote> votes;
    for (uint32_t machine = 0; machine < 4; ++machine) votes[machine].bytes = {0x18, 0x8b};
    replica.apply(context.ctx, pack_round(replica, {}, {}, votes, 4, {1e-3f, 1}));
    if (expected.empty()) expected = own.bytes();
    EXPECT_TRUE(own.bytes() == expected) << static_cast<int>(aggregate);
  }
}

TEST(Aggregates, MedianHoldsAgainstAFifthOfLiars) {
  // Ten machines see a gradient of about 16 units; two of them say 245,760 with the other sign.
  std::vector<std::array<uint8_t, 2>> votes;
  for (uint8_t k = 0; k < 8; ++k) votes.push_back({static_cast<uint8_t>(0x0c + k), 0x10});
  votes.push_back({0xff, 0xff});
  votes.push_back({0xff, 0xff});
  EXPECT_LT(sums(header_with(Aggregate::sum), votes)[1], 0) << "clipped at eight medians, two liars still win";
  EXPECT_GT(sums(header_with(Aggregate::median), votes)[0], 0);
  EXPECT_EQ(sums(header_with(Aggregate::median), votes)[1], 32);
  EXPECT_EQ(sums(header_with(Aggregate::trimmed), votes)[1], 32);
}

TEST(Aggregates, OfEveryOptimizerAreTheSameOnEveryBackend) {
  for (const OptimizerKind& kind : optimizer_kinds())
    for (const Aggregate aggregate : {Aggregate::median, Aggregate::trimmed}) {
      OwnPool start;
      RunHeader h = header_with(aggregate);
      h.m = 3;
      h.optimizer = kind.name;
      const auto records = random_rounds(h, start, 9);
      OwnContext cpu, reference("reference");
      cpu.ctx.threads = 3;
      EXPECT_TRUE(replayed(h, records, cpu.ctx, true) == replayed(h, records, reference.ctx, false)) << kind.name;
    }
}

TEST(Clipping, OfFormatTwoIsByVotesThatAreNotZero) {
  OwnPool own;
  for (const bool has_terms : {false, true}) {
    RunHeader h = header_of(own, Family::shared);
    h.m = 2;
    if (has_terms) h.terms.emplace();
    // Most votes are 0, as of a unit that is too large: their median would cut all others to 0.
    VoteCounts counts;
    const auto sum = sums(h, {{0, 0}, {0, 0}, {0, 0}, {0x07, 0x05}, {0x05, 0x06}}, counts);
    EXPECT_THAT(sum, has_terms ? testing::ElementsAre(12, 11) : testing::ElementsAre(0, 0));
    EXPECT_EQ(counts.clipped(), has_terms ? 0 : 4);
  }
}

TEST(Units, OfFormatTwoAreJudgedByVotesThatAreNotZero) {
  for (const bool has_terms : {false, true}) {
    OwnPool own;
    RunHeader h = header_of(own);
    h.m = 1;
    if (has_terms) h.terms.emplace();
    Replica replica(h, own.params());
    const OwnContext context;
    std::map<uint32_t, Vote> votes;
    for (uint32_t machine = 0; machine < 5; ++machine)
      votes[machine].bytes = {machine < 3 ? uint8_t{0} : uint8_t{0x30}};  // 256: right where it should be
    for (int t = 0; t < 65; ++t) replica.apply(context.ctx, pack_round(replica, {}, {}, votes, 5, {1e-3f, 1}));
    EXPECT_EQ(replica.unit(), has_terms ? 9 : 13);
    // Nothing but zeros: of either format the unit becomes finer.
    for (auto& [machine, vote] : votes) vote.bytes = {0};
    const int before = replica.unit();
    for (int t = 0; t < 130; ++t) replica.apply(context.ctx, pack_round(replica, {}, {}, votes, 5, {1e-3f, 1}));
    EXPECT_GT(replica.unit(), before);
  }
}

}  // namespace
}  // namespace tessera

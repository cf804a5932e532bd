// Who took part in a run, as its records tell.

#include "train/spsa/attendance.h"

#include <gmock/gmock.h>

#include "train/spsa/replicas.h"

namespace tessera {
namespace {

using namespace test;

/// A run of format 2 with two probes a machine. Votes of 5 units; a wild one is cut at eight times that.
class Attending : public testing::Test {
 protected:
  Attending() {
    header_.m = 2;
    header_.clip = 8;
    header_.stale_max = 2;
    header_.terms.emplace();
  }
  /// @param voted  lanes; wild: of these a lane whose second vote is far too large
  void round(const std::vector<RosterChange>& changes, const std::vector<size_t>& voted,
             std::optional<size_t> wild = {}, const std::vector<ExtraGroup>& late = {}, uint16_t flags = 0) {
    Record record;
    record.round = record.seed_round = before_.next_round();
    record.roster = changes;
    record.flags = flags;
    record.m = 2;
    record.unit_exp = 9;
    record.lanes = static_cast<uint16_t>(before_.roster().size());
    for (const RosterChange& change : changes)
      record.lanes = std::max(record.lanes, static_cast<uint16_t>(change.lane + 1));
    record.present.resize(record.lanes);
    for (const size_t lane : voted) {
      record.present[lane] = true;
      record.bytes.push_back(5);
      record.bytes.push_back(wild == std::optional(lane) ? 0x7f : 0x85);
    }
    record.extra = late;
    counts_ = attendance_.add(record, before_);
    before_.accept(record);
  }
  void other(RecordType type) {
    Record record;
    record.type = type;
    record.round = before_.next_round();
    attendance_.add(record, before_);
  }
  MachineLine line(uint32_t machine) const {
    for (const MachineLine& line : attendance_.lines())
      if (line.machine == machine) return line;
    ADD_FAILURE() << machine;
    return {};
  }
  static std::vector<bool> bits(std::vector<int> all) { return {all.begin(), all.end()}; }

  OwnPool own_;
  RunHeader header_ = header_of(own_, Family::independent);
  Attendance attendance_{header_};
  RecentRounds before_{2, 9};
  VoteCounts counts_;
};

TEST_F(Attending, TellsWhoCameLeftFellSilentAndWasLate) {
  round({{0, true, 40}, {1, true, 41}, {2, true, 42}}, {});
  round({}, {0, 1, 2});
  round({}, {0, 1});  // 42 is late
  round({}, {0, 1, 2}, {}, {{2, -1e-3f, bits({0, 0, 1}), {5, 5}}});
  round({{1, false, 41}, {1, true, 50}}, {0, 2});
  round({}, {0, 1});
  round({}, {0, 1});
  round({{2, false, 42}}, {0, 1});
  EXPECT_EQ(attendance_.lines().size(), 4u);
  EXPECT_EQ(line(40).voted, 7);
  EXPECT_EQ(line(40).absent + line(40).late, 0);
  EXPECT_STREQ(line(40).why(), "");
  EXPECT_STREQ(line(41).why(), "left");
  EXPECT_EQ(line(41).left, std::optional(4u));
  EXPECT_EQ(line(42).voted, 3);
  EXPECT_EQ(line(42).late, 1);
  EXPECT_EQ(line(42).absent, 2) << "the round that it was late in is none of them";
  EXPECT_STREQ(line(42).why(), "silent");
  EXPECT_EQ(line(50).lane, 1u);
  EXPECT_EQ(line(50).joined, 4u);
  EXPECT_EQ(line(50).absent, 0) << "it could not vote in the round that gave it its lane";
}

TEST_F(Attending, TellsWhoFellSilentAtADigest) {
  round({{0, true, 40}, {1, true, 41}, {2, true, 42}}, {});
  round({}, {0, 1, 2});
  other(RecordType::digest);
  round({}, {0, 2});
  round({}, {0});
  round({{1, false, 41}}, {0});
  round({{2, false, 42}}, {0});
  EXPECT_STREQ(line(41).why(), "digest");
  EXPECT_STREQ(line(42).why(), "silent") << "it began a round behind the DIGEST";
}

TEST_F(Attending, CountsWhoseVotesWereCut) {
  round({{0, true, 40}, {1, true, 41}, {2, true, 42}, {3, true, 43}}, {});
  round({}, {0, 1, 2, 3}, 2);
  EXPECT_EQ(counts_.votes, 8);
  EXPECT_EQ(counts_.clipped(), 1);
  // Lane 2 is another's by now: a late vote is that of the machine that had it then.
  round({}, {0, 1, 3}, 3);
  EXPECT_EQ(counts_.clipped(), 0) << "limits are of eight votes or more";
  round({{2, false, 42}, {2, true, 60}}, {0, 1, 3}, {}, {{2, -1e-3f, bits({0, 0, 1, 0}), {5, 5}}});
  for (const auto& [machine, clipped] : std::map<uint32_t, int64_t>{{40, 0}, {41, 0}, {42, 1}, {43, 0}, {60, 0}})
    EXPECT_EQ(line(machine).clipped, clipped) << machine;
  EXPECT_EQ(line(42).late, 1);
  EXPECT_EQ(line(60).late, 0);
}

TEST_F(Attending, CountsWhatTheEngineLostAndWhatPackersLost) {
  round({{0, true, 40}}, {});
  other(RecordType::reseed);
  round({}, {0}, {}, {}, kHadConflict);
  round({}, {0});
  EXPECT_EQ(attendance_.reseeds(), 1);
  EXPECT_EQ(attendance_.conflicts(), 1);
}

TEST_F(Attending, OfSharedDirectionsAndHadamardLanesKnowsWhoseVoteWasCutToo) {
  for (const Family family : {Family::shared, Family::hadamard}) {
    RunHeader header = header_of(own_, family);
    header.m = 2;
    header.clip = 8;
    header.lanes = family == Family::hadamard ? 8 : 0;
    if (family == Family::shared) header.terms.emplace().aggregate = Aggregate::median;
    Attendance attendance(header);
    RecentRounds before(header.late_rounds(), 9);
    Record record;
    record.lanes = 4;
    record.m = 2;
    for (uint32_t k = 0; k < 4; ++k) record.roster.push_back({k, true, 40 + k});
    record.present.assign(4, true);
    record.bytes = {5, 0x85, 5, 0x85, 5, 0x85, 0x7f, 0x85};
    EXPECT_EQ(attendance.add(record, before).clipped(), 1);
    EXPECT_EQ(attendance.lines().at(3).clipped, 1);
    EXPECT_EQ(attendance.lines().at(0).clipped, 0);
  }
}

}  // namespace
}  // namespace tessera

// Run under 1, 2, 3 and 4 ranks. The world ends before main returns.

#include <gtest/gtest.h>

#include "steplog/log_engine.h"
#include "steplog/samples.h"

namespace tessera::test {
namespace {

using std::chrono::milliseconds;
using Append = LogEngine::Append;

class World : public ::testing::Environment {
 public:
  void SetUp() override { world_ = world_communicator(); }
  void TearDown() override { world_.reset(); }
  Communicator& get() { return *world_; }

 private:
  std::unique_ptr<Communicator> world_;
};
World* const environment = static_cast<World*>(::testing::AddGlobalTestEnvironment(new World));
Communicator& world() { return environment->get(); }

Bytes vote_of(int rank, uint32_t round, size_t m) {
  Vote vote;
  vote.seed_round = round;
  vote.machine = static_cast<uint32_t>(rank);
  vote.bytes = Dice(static_cast<uint64_t>(rank) * 1000 + round).bytes(m);
  return encode(vote);
}

TEST(MpiEngine, EveryRankHasAllVotesInRankOrder) {
  const auto engine = make_mpi_engine(world(), 0);
  for (uint32_t round = 0; round < 5; ++round) {
    engine->publish_vote(vote_of(world().rank(), round, 1 + round));
    engine->wait(milliseconds(0));
    const std::vector<Bytes> votes = engine->take_votes();
    ASSERT_EQ(votes.size(), static_cast<size_t>(world().size()));
    for (int rank = 0; rank < world().size(); ++rank)
      EXPECT_EQ(votes[static_cast<size_t>(rank)], vote_of(rank, round, 1 + round));
    EXPECT_TRUE(engine->take_votes().empty());
  }
}

TEST(MpiEngine, RanksMaySendNothingOrSeveralMessagesOrAnyBytes) {
  const auto engine = make_mpi_engine(world(), 0);
  const Bytes odd = bytes_of({0, 0, 7}), empty;
  const auto sent_by = [&](int rank) {
    std::vector<Bytes> all;
    for (int i = 0; i < rank; ++i) all.push_back(vote_of(rank, static_cast<uint32_t>(i), 3));
    if (rank % 2) all.push_back(odd);
    if (rank == 2) all.push_back(empty);
    return all;
  };
  for (const Bytes& message : sent_by(world().rank())) engine->publish_vote(message);
  engine->wait(milliseconds(0));
  std::vector<Bytes> expected;
  for (int rank = 0; rank < world().size(); ++rank)
    for (const Bytes& message : sent_by(rank)) expected.push_back(message);
  EXPECT_EQ(engine->take_votes(), expected);
}

TEST(MpiEngine, ARoundCostsItsVotesAndNothingElse) {
  const auto engine = make_mpi_engine(world(), 0);
  const int64_t before = world().traffic().total_bytes();
  engine->publish_vote(vote_of(world().rank(), 0, 16));
  engine->wait(milliseconds(0));
  EXPECT_EQ(engine->traffic().up, 8 + 19 + 16);  // the length goes before, in an all-gather of its own
  EXPECT_EQ(engine->traffic().down, (world().size() - 1) * (8 + 19 + 16));
  EXPECT_EQ(world().traffic().total_bytes() - before, 19 + 16);
  EXPECT_EQ(world().traffic().all_gather.calls > 0, true);
}

TEST(MpiEngine, AppendsInOrderAndRefusesAStaleNumber) {
  const auto engine = make_mpi_engine(world(), 7);
  const Bytes first = bytes_of({1}), second = bytes_of({2});
  EXPECT_EQ(engine->append(6, first), Append::conflict);
  EXPECT_EQ(engine->append(7, first), Append::won);
  EXPECT_EQ(engine->append(7, second), Append::conflict);
  EXPECT_EQ(engine->append(8, second), Append::won);
  EXPECT_EQ(engine->read(7), (std::vector<Bytes>{first, second}));
  EXPECT_EQ(engine->read(8), (std::vector<Bytes>{second}));
  EXPECT_TRUE(engine->read(9).empty());
  EXPECT_EQ(engine->append(9, first), Append::won);
  EXPECT_EQ(engine->read(9), (std::vector<Bytes>{first}));
}

}  // namespace
}  // namespace tessera::test

// The engine's log and those of the machines: one the beginning of the other, or a fork.

#include "train/spsa/loose/stream_keeper.h"

#include "train/spsa/loose/keeper_nodes.h"

namespace tessera {
namespace {

using namespace test;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

TEST_F(Keeper, OpensWhereTheEnginesLogIsMineOrLonger) {
  KeeperNode empty(server_, "a", {});
  EXPECT_TRUE(empty.attend(0)) << "a run that begins";
  server_.fill(rounds(7));
  for (const size_t mine : {0, 1, 4, 7}) {
    KeeperNode node(server_, "b", rounds(mine));
    EXPECT_TRUE(node.attend(0)) << mine;
    EXPECT_EQ(node.records(), rounds(7));
    EXPECT_THAT(node.said, IsEmpty());
  }
  EXPECT_THAT(server_.controls, IsEmpty());
}

TEST_F(Keeper, StaysShutWhileTheEngineIsAwayOrNotYetRead) {
  server_.fill(rounds(5));
  KeeperNode node(server_, "a", rounds(3));
  server_.reachable = false;
  EXPECT_FALSE(node.attend(0));
  server_.reachable = true;
  server_.complete = false;
  EXPECT_FALSE(node.attend(1));
  server_.complete = true;
  EXPECT_TRUE(node.attend(2));
  server_.reachable = false;
  EXPECT_FALSE(node.attend(3));
}

TEST_F(Keeper, FindsAForkNamesTheRecordAndBothHashesAndSaysWhatMendsIt) {
  const auto mine = rounds(6), other = rounds(9, 4, 77);
  server_.fill(other);
  KeeperNode node(server_, "a", mine);
  EXPECT_THAT(node.fault(),
              AllOf(StartsWith("record 5: "), HasSubstr(fmt::format("the engine's ({:016x})", chain_hash(other[5]))),
                    HasSubstr(fmt::format("mine ({:016x})", chain_hash(mine[5]))), HasSubstr("spsa.on_fork")));
  EXPECT_EQ(node.records(), mine) << "nothing was read over it";
}

TEST_F(Keeper, FindsAForkWhereTheEnginesLogIsTheShorter) {
  server_.fill(rounds(5, 2, 77));
  KeeperNode node(server_, "a", rounds(8));
  EXPECT_THAT(node.fault(), StartsWith("record 4: the engine's"));
  EXPECT_THAT(server_.records, SizeIs(5)) << "it is not filled with what does not follow";
}

TEST_F(Keeper, LooksAgainOnEveryConnection) {
  server_.fill(rounds(5));
  KeeperNode node(server_, "a", rounds(5));
  EXPECT_TRUE(node.attend(0));
  server_.records.clear();
  server_.fill(rounds(6, 1, 77));
  ++server_.connections;
  EXPECT_THAT(node.fault(1), StartsWith("record 4: "));
}

TEST_F(Keeper, TellsOfARecordThatTheEngineHoldsTwice) {
  server_.fill(rounds(3));
  server_.fork = 2;
  KeeperNode node(server_, "a", rounds(3));
  EXPECT_THAT(node.fault(), AllOf(StartsWith("record 2: "), HasSubstr("two records of this number that differ")));
}

TEST_F(Keeper, DoubtsWhatContradictsItsLogAndGoesOn) {
  const auto mine = rounds(8);
  KeeperNode node(server_, "a", mine);
  node.keeper.take({run_id().prefix(), 5, chain_hash(mine[4])}, "b");
  node.keeper.take({run_id().prefix(), 8, chain_hash(mine[7])}, "b");
  node.keeper.take({run_id().prefix(), 0, 0}, "b");
  node.keeper.take({run_id().prefix(), 9, 1}, "b");      // longer: nothing is known of it
  node.keeper.take({run_id().prefix() ^ 1, 5, 1}, "b");  // of another run
  node.keeper.take({run_id().prefix(), 5, 1}, "a");      // its own
  EXPECT_THAT(node.said, IsEmpty());
  // Anybody may send such a message: it is told, once, and ends nothing.
  for (int k = 0; k < 3; ++k) node.keeper.take({run_id().prefix(), 5, 1}, "b");
  EXPECT_THAT(node.said, ElementsAre(AllOf(HasSubstr("node \"b\" tells of another record 4 (0000000000000001)"),
                                           HasSubstr(fmt::format("{:016x}", chain_hash(mine[4]))))));
}

TEST_F(Keeper, WithALogOfWhichTheBeginningIsDroppedComparesWhatIsThere) {
  const auto all = rounds(12);
  server_.fill(all);
  KeeperNode node(server_, "a", {all.begin(), all.begin() + 6});
  node.log.new_segment();
  for (size_t k = 6; k < 9; ++k) node.log.append(all[k]);
  node.log.compact(6, StepLog::Compaction::drop);
  ASSERT_EQ(node.log.first_index(), 6u);
  for (const uint64_t there : {0, 3, 6}) {
    node.keeper.take({run_id().prefix(), there, there ? chain_hash(all[there - 1]) : 0}, "b");
    node.keeper.take({run_id().prefix(), 7, chain_hash(all[6])}, "b");
  }
  EXPECT_TRUE(node.attend(0));
  EXPECT_EQ(node.log.size(), 12u);
}

}  // namespace
}  // namespace tessera

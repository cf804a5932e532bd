// An engine that lost records is filled again by the machine with the longest log, and by no other.

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

TEST_F(Keeper, FillsAnEngineThatLostItsEndAndWritesAReseedBehindIt) {
  const auto all = rounds(9);
  server_.fill(all);
  KeeperNode node(server_, "a", all);
  EXPECT_TRUE(node.attend(0));
  server_.lose(4, 9);
  EXPECT_FALSE(node.attend(10));
  EXPECT_THAT(node.said, ElementsAre(AllOf(HasSubstr("4 records"), HasSubstr("machine's 9"))));
  const uint64_t prev = chain_hash(all[8]);
  EXPECT_THAT(haves(), ElementsAre(HaveRecords{run_id().prefix(), 9, prev}));
  EXPECT_FALSE(node.attend(13.9));
  EXPECT_THAT(server_.records, SizeIs(4)) << "somebody may have more: it waits for word of that";
  EXPECT_FALSE(node.attend(14.1));
  EXPECT_EQ(node.keeper.reseeds(), 1);
  EXPECT_TRUE(node.attend(14.2));
  ASSERT_THAT(server_.records, SizeIs(10));
  EXPECT_EQ(type_of(server_.records.at(9)), RecordType::reseed);
  EXPECT_EQ(node.records(), server_.in_order());
  EXPECT_THAT(node.said.back(), HasSubstr("whole again, with 10 records"));
  EXPECT_EQ(node.keeper.reseeds(), 1);
}

TEST_F(Keeper, FillsAnEngineThatLostEverything) {
  server_.fill(rounds(5));
  KeeperNode node(server_, "a", rounds(5));
  server_.lose(0, 5);
  EXPECT_FALSE(node.attend(0));
  EXPECT_FALSE(node.attend(kQuiet));
  EXPECT_TRUE(node.attend(kQuiet));
  EXPECT_THAT(server_.records, SizeIs(6));
}

TEST_F(Keeper, FillsAGapInTheMiddle) {
  const auto all = rounds(9);
  server_.fill(all);
  KeeperNode node(server_, "a", all);
  server_.lose(3, 5);
  EXPECT_FALSE(node.attend(0));
  EXPECT_FALSE(node.attend(kQuiet));
  EXPECT_TRUE(node.attend(kQuiet));
  ASSERT_THAT(server_.records, SizeIs(10));
  EXPECT_EQ(node.records(), server_.in_order());
  EXPECT_EQ(type_of(server_.records.at(9)), RecordType::reseed);
}

TEST_F(Keeper, RepeatsWhatItHasWhileItWaits) {
  KeeperNode node(server_, "a", rounds(5));
  for (const double at : {0.0, 0.1, 0.4, 0.6, 0.7, 1.2}) EXPECT_FALSE(node.attend(at));
  EXPECT_THAT(haves(), SizeIs(3)) << "at 0, 0.6 and 1.2: a message may be lost";
}

TEST_F(Keeper, LeavesTheWordToTheLongestLog) {
  const auto all = rounds(9);
  server_.fill(all);
  KeeperNode longest(server_, "a", all), shorter(server_, "b", rounds(7));
  longest.ranks["b"] = 0, longest.ranks["a"] = 1;
  shorter.ranks["a"] = 1;
  server_.lose(2, 9);
  EXPECT_FALSE(shorter.attend(0));
  EXPECT_FALSE(longest.attend(0));
  EXPECT_FALSE(shorter.attend(kQuiet + 1));
  EXPECT_THAT(server_.records, SizeIs(2)) << "though it is first by its lane";
  EXPECT_FALSE(longest.attend(kQuiet + 1));
  EXPECT_TRUE(longest.attend(kQuiet + 1.1));
  EXPECT_FALSE(shorter.attend(kQuiet + 1.1)) << "nobody goes on before the RESEED can be there";
  EXPECT_FALSE(shorter.attend(kQuiet + 2.0));
  EXPECT_TRUE(shorter.attend(kQuiet + 2.2));
  EXPECT_EQ(shorter.records(), longest.records());
  EXPECT_THAT(longest.records(), SizeIs(10));
  EXPECT_EQ(shorter.keeper.reseeds() + longest.keeper.reseeds(), 1);
}

TEST_F(Keeper, LeavesItToTheLowestOfEquallyLongOnes) {
  const auto all = rounds(6);
  server_.fill(all);
  KeeperNode first(server_, "z", all), second(server_, "a", all);
  first.ranks["a"] = second.ranks["a"] = 1;
  first.ranks["z"] = second.ranks["z"] = 0;
  server_.lose(5, 6);
  for (const double at : {0.0, kQuiet + 1})
    for (KeeperNode* node : {&second, &first}) EXPECT_FALSE(node->attend(at));
  EXPECT_EQ(second.keeper.reseeds(), 0);
  EXPECT_EQ(first.keeper.reseeds(), 1);
}

TEST_F(Keeper, FillsTogetherWithAnotherThatHasNotHeardOfIt) {
  const auto all = rounds(8);
  server_.fill(all);
  KeeperNode mine(server_, "a", all), other(server_, "b", all);
  server_.lose(4, 8);
  EXPECT_FALSE(mine.attend(0));
  server_.before_append = [&](uint64_t) {
    server_.before_append = nullptr;
    other.heard = server_.controls.size();
    EXPECT_FALSE(other.attend(0));
    EXPECT_FALSE(other.attend(kQuiet));
    EXPECT_THAT(server_.records, SizeIs(9));
  };
  EXPECT_FALSE(mine.attend(kQuiet));
  for (KeeperNode* node : {&mine, &other}) {
    EXPECT_TRUE(node->attend(kQuiet));
    EXPECT_EQ(node->records(), server_.in_order());
    EXPECT_THAT(node->records(), SizeIs(9)) << "both wrote the same RESEED, and it is there once";
  }
}

TEST_F(Keeper, WritesNoReseedWhereAnotherGoesOnAtOnce) {
  const auto all = rounds(9);
  server_.fill({all.begin(), all.begin() + 8});
  KeeperNode mine(server_, "a", {all.begin(), all.begin() + 8});
  server_.lose(4, 8);
  EXPECT_FALSE(mine.attend(0));
  server_.before_append = [&](uint64_t expected) {
    if (expected == 8) server_.records.emplace(8, all[8]);  // whose log has eight sees that the engine's has them, too
  };
  EXPECT_FALSE(mine.attend(kQuiet));
  EXPECT_EQ(mine.keeper.reseeds(), 0);
  EXPECT_FALSE(mine.attend(kQuiet));
  EXPECT_TRUE(mine.attend(kQuiet + 1.1));
  EXPECT_EQ(mine.records(), all);
}

TEST_F(Keeper, FillsOnWhereTheConnectionBroke) {
  const auto all = rounds(8);
  server_.fill(all);
  KeeperNode node(server_, "a", all);
  server_.lose(2, 8);
  EXPECT_FALSE(node.attend(0));
  server_.before_append = [&](uint64_t expected) { server_.reachable = expected != 5; };
  EXPECT_FALSE(node.attend(kQuiet));
  EXPECT_THAT(server_.records, SizeIs(5));
  EXPECT_FALSE(node.attend(kQuiet));
  server_.before_append = nullptr;
  server_.reachable = true;
  ++server_.connections;
  EXPECT_FALSE(node.attend(50)) << "it hears the others again first";
  EXPECT_THAT(server_.records, SizeIs(5));
  EXPECT_FALSE(node.attend(50 + kQuiet));
  EXPECT_TRUE(node.attend(50 + kQuiet));
  EXPECT_THAT(node.records(), SizeIs(9)) << "eight and one RESEED";
  EXPECT_EQ(node.records(), server_.in_order());
}

TEST_F(Keeper, WaitsForTheOthersToConnectHoweverShortRoundsAre) {
  const auto all = rounds(5);
  KeeperNode node(server_, "a", all);
  const auto attend = [&](double seconds) {
    const auto at = std::chrono::duration_cast<RoundClock::Clock::duration>(RoundClock::Seconds(seconds));
    return node.keeper.attend(StreamKeeper::Time{} + at, RoundClock::Seconds(0.2));
  };
  for (const double at : {0.0, 0.3, 2.9}) EXPECT_FALSE(attend(at));
  EXPECT_THAT(server_.records, IsEmpty());
  EXPECT_FALSE(attend(3.1));
  EXPECT_THAT(server_.records, SizeIs(6));
}

TEST_F(Keeper, FindsAForkWhereOthersFilledTheEngineAndHadLess) {
  const auto all = rounds(9);
  server_.fill(all);
  KeeperNode longest(server_, "a", all), other(server_, "b", {all.begin(), all.begin() + 7});
  server_.lose(3, 9);
  EXPECT_FALSE(longest.attend(0));
  other.heard = server_.controls.size();  // it was away when the longest log was told of
  EXPECT_FALSE(other.attend(0));
  EXPECT_FALSE(other.attend(kQuiet));
  EXPECT_TRUE(other.attend(kQuiet));
  server_.records.emplace(8, rounds(9, 8, 77)[8]);
  longest.heard = server_.controls.size();
  EXPECT_FALSE(longest.attend(kQuiet));
  EXPECT_THAT(longest.fault(kQuiet + 1.1), AllOf(StartsWith("record 8: the engine's ("), HasSubstr("spsa.on_fork")));
}

TEST_F(Keeper, ForgetsWhatOthersHadBeforeTheConnection) {
  const auto all = rounds(8);
  server_.fill(all);
  KeeperNode node(server_, "a", all);
  server_.lose(2, 8);
  EXPECT_FALSE(node.attend(0));
  node.keeper.take({run_id().prefix(), 20, 1}, "gone");
  EXPECT_FALSE(node.attend(kQuiet + 1));
  EXPECT_THAT(server_.records, SizeIs(2)) << "who has 20 has the word";
  ++server_.connections;
  EXPECT_FALSE(node.attend(50));
  EXPECT_FALSE(node.attend(51 + kQuiet));
  EXPECT_THAT(server_.records, SizeIs(9));
}

TEST_F(Keeper, IsNotHeldUpForEverByOneThatTellsOfMoreAndFillsNothing) {
  const auto all = rounds(8);
  server_.fill(all);
  KeeperNode node(server_, "a", all);
  server_.lose(2, 8);
  for (double at = 0; at < 60 && server_.records.size() == 2; at += 1) {
    node.keeper.take({run_id().prefix(), uint64_t{1} << 60, 1}, "boaster");
    EXPECT_FALSE(node.attend(at));
    if (at < 4 * kQuiet + 20) {
      EXPECT_EQ(server_.records.size(), 2u) << at;
    }
  }
  EXPECT_THAT(server_.records, SizeIs(9));
}

TEST_F(Keeper, LooksAgainWhenAnotherHasFilledTheEngine) {
  const auto all = rounds(8), other = rounds(9, 4, 77);
  server_.fill(all);
  KeeperNode node(server_, "a", all);
  EXPECT_TRUE(node.attend(0));
  server_.lose(4, 8);
  EXPECT_FALSE(node.attend(1));
  server_.records.clear();
  server_.fill(other);  // without a word on the connection
  EXPECT_FALSE(node.attend(2));
  EXPECT_THAT(node.fault(4), StartsWith("record 7: the engine's"));
}

TEST_F(Keeper, WaitsForNobodyWhoHasFallenSilent) {
  const auto all = rounds(8);
  server_.fill(all);
  KeeperNode node(server_, "a", all);
  server_.lose(2, 8);
  EXPECT_FALSE(node.attend(0));
  for (const double at : {0.0, 2.0, 4.0, 6.0, 8.0}) {
    node.keeper.take({run_id().prefix(), 20, 1}, "longest");
    EXPECT_FALSE(node.attend(at));
  }
  EXPECT_THAT(server_.records, SizeIs(2));
  EXPECT_FALSE(node.attend(10.5));
  EXPECT_THAT(server_.records, SizeIs(2)) << "it may be slow";
  EXPECT_FALSE(node.attend(12));
  EXPECT_THAT(server_.records, SizeIs(9)) << "it was killed: what it alone had is lost";
}

TEST_F(Keeper, WithALogOfWhichTheBeginningIsDroppedLeavesTheWordToOneThatIsWhole) {
  const auto all = rounds(9);
  server_.fill(all);
  KeeperNode dropped(server_, "a", {all.begin(), all.begin() + 6}), whole(server_, "b", all);
  dropped.log.new_segment();
  for (size_t k = 6; k < 9; ++k) dropped.log.append(all[k]);
  dropped.log.compact(6, StepLog::Compaction::drop);
  for (KeeperNode* node : {&dropped, &whole}) node->ranks = {{"a", 0}, {"b", 1}};
  server_.lose(3, 9);
  for (const double at : {0.0, kQuiet})
    for (KeeperNode* node : {&dropped, &whole}) EXPECT_FALSE(node->attend(at)) << at;
  EXPECT_THAT(dropped.said, ElementsAre(HasSubstr("3 records"), HasSubstr("begins with record 6")));
  EXPECT_FALSE(dropped.attend(kQuiet));
  for (KeeperNode* node : {&dropped, &whole}) EXPECT_TRUE(node->attend(kQuiet + 1.1));
  EXPECT_THAT(server_.records, SizeIs(10)) << "though the other is first by its lane";
  EXPECT_EQ(dropped.log.size(), 10u);
}

TEST_F(Keeper, WithALogOfWhichTheBeginningIsDroppedFillsWhatItHas) {
  const auto all = rounds(9);
  server_.fill(all);
  KeeperNode dropped(server_, "a", {all.begin(), all.begin() + 6});
  dropped.log.new_segment();
  for (size_t k = 6; k < 9; ++k) dropped.log.append(all[k]);
  dropped.log.compact(6, StepLog::Compaction::drop);
  server_.lose(6, 9);
  EXPECT_FALSE(dropped.attend(0));
  EXPECT_FALSE(dropped.attend(kQuiet));
  EXPECT_TRUE(dropped.attend(kQuiet));
  EXPECT_THAT(server_.records, SizeIs(10));
}

}  // namespace
}  // namespace tessera

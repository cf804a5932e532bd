// The engine's log and those of the machines: one the beginning of the other, a fork, or an engine that lost records.

#include "train/spsa/loose/stream_keeper.h"

#include <gmock/gmock.h>

#include "io/sha256.h"
#include "steplog/step_log_samples.h"
#include "support/error_text.h"
#include "support/paths.h"
#include "train/spsa/loose/memory_engine.h"

namespace tessera {
namespace {

using namespace test;
using testing::AllOf;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::StartsWith;

const std::string kRunHeader =
    R"({"alpha_max": "46293e5939a08cea", "format": 2, "signers": [], "stale_max": 2, "unit": 9})";
constexpr double kQuiet = 4;  // seconds that nobody packs, and who is there tells how much it has

RunId run_id() { return {sha256(std::as_bytes(std::span(kRunHeader)))}; }
Chain new_chain() { return Chain(run_id(), {.stale_max = 2, .format = 2}); }

/// Rounds of two machines. @param common  records after which `other` goes on in another way
std::vector<Bytes> rounds(size_t count, size_t common = 0, uint64_t other = 0) {
  Chain chain = new_chain();
  std::vector<Bytes> all;
  while (all.size() < count) {
    if (other && all.size() == common) chain.dice = Dice(other);
    all.push_back(chain.add(all.empty() ? chain.first_round(2) : chain.round()));
  }
  return all;
}

/// A machine with a log of its own.
struct Node {
  Node(MemoryServer& server, const std::string& name, const std::vector<Bytes>& records, int64_t rank = 0)
      : server(server),
        name(name),
        log(StepLog::create(folder / "log", kRunHeader, {.sync_appends = false})),
        engine(server, name) {
    for (const Bytes& record : records) log.append(record);
    ranks[name] = rank;
  }
  /// What the loop does: takes what others said, looks, and reads when it may.
  bool attend(double seconds) {
    for (; heard < server.controls.size(); ++heard) {
      const auto decoded = decode_control_message(server.controls[heard].bytes);
      keeper.take(std::get<HaveRecords>(std::get<ControlMessage>(decoded)), server.controls[heard].node);
    }
    const auto at = std::chrono::duration_cast<RoundClock::Clock::duration>(RoundClock::Seconds(seconds));
    const bool is_open = keeper.attend(StreamKeeper::Time{} + at, RoundClock::Seconds(kQuiet));
    if (is_open)
      for (const Bytes& record : engine.read(log.size())) log.append(record);
    return is_open;
  }
  std::string fault(double seconds = 0) {
    return error_text([&] { attend(seconds); });
  }
  std::vector<Bytes> records() const { return records_of(log); }
  Bytes reseed() const {
    Chain chain(log.run());
    chain.rules = log.chain();
    return encode(chain.next(RecordType::reseed));
  }

  MemoryServer& server;
  std::string name;
  TemporaryFolder folder;
  StepLog log;
  MemoryEngine engine;
  std::map<std::string, int64_t> ranks;
  std::vector<std::string> said;
  size_t heard = 0;
  StreamKeeper keeper{{.engine = engine,
                       .log = log,
                       .node = name,
                       .rank = [this](const std::string& node) { return ranks.at(node); },
                       .reseed = [this] { return reseed(); },
                       .say = [this](const std::string& text) { said.push_back(text); }}};
};

class Keeper : public testing::Test {
 protected:
  RecordType type_of(const Bytes& record) const { return std::get<Record>(decode_record(record)).type; }
  std::vector<HaveRecords> haves() const {
    std::vector<HaveRecords> all;
    for (const auto& message : server_.controls)
      all.push_back(std::get<HaveRecords>(std::get<ControlMessage>(decode_control_message(message.bytes))));
    return all;
  }
  MemoryServer server_;
};

TEST_F(Keeper, OpensWhereTheEnginesLogIsMineOrLonger) {
  Node empty(server_, "a", {});
  EXPECT_TRUE(empty.attend(0)) << "a run that begins";
  server_.fill(rounds(7));
  for (const size_t mine : {0, 1, 4, 7}) {
    Node node(server_, "b", rounds(mine));
    EXPECT_TRUE(node.attend(0)) << mine;
    EXPECT_EQ(node.records(), rounds(7));
    EXPECT_THAT(node.said, IsEmpty());
  }
  EXPECT_THAT(server_.controls, IsEmpty());
}

TEST_F(Keeper, StaysShutWhileTheEngineIsAwayOrNotYetRead) {
  server_.fill(rounds(5));
  Node node(server_, "a", rounds(3));
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
  Node node(server_, "a", mine);
  EXPECT_THAT(node.fault(),
              AllOf(StartsWith("record 5: "), HasSubstr(fmt::format("the engine's ({:016x})", chain_hash(other[5]))),
                    HasSubstr(fmt::format("mine ({:016x})", chain_hash(mine[5]))), HasSubstr("spsa.on_fork")));
  EXPECT_EQ(node.records(), mine) << "nothing was read over it";
}

TEST_F(Keeper, FindsAForkWhereTheEnginesLogIsTheShorter) {
  server_.fill(rounds(5, 2, 77));
  Node node(server_, "a", rounds(8));
  EXPECT_THAT(node.fault(), StartsWith("record 4: the engine's"));
  EXPECT_THAT(server_.records, SizeIs(5)) << "it is not filled with what does not follow";
}

TEST_F(Keeper, LooksAgainOnEveryConnection) {
  server_.fill(rounds(5));
  Node node(server_, "a", rounds(5));
  EXPECT_TRUE(node.attend(0));
  server_.records.clear();
  server_.fill(rounds(6, 1, 77));
  ++server_.connections;
  EXPECT_THAT(node.fault(1), StartsWith("record 4: "));
}

TEST_F(Keeper, TellsOfARecordThatTheEngineHoldsTwice) {
  server_.fill(rounds(3));
  server_.fork = 2;
  Node node(server_, "a", rounds(3));
  EXPECT_THAT(node.fault(), AllOf(StartsWith("record 2: "), HasSubstr("two records of this number that differ")));
}

TEST_F(Keeper, FillsAnEngineThatLostItsEndAndWritesAReseedBehindIt) {
  const auto all = rounds(9);
  server_.fill(all);
  Node node(server_, "a", all);
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
  Node node(server_, "a", rounds(5));
  server_.lose(0, 5);
  EXPECT_FALSE(node.attend(0));
  EXPECT_FALSE(node.attend(kQuiet));
  EXPECT_TRUE(node.attend(kQuiet));
  EXPECT_THAT(server_.records, SizeIs(6));
}

TEST_F(Keeper, FillsAGapInTheMiddle) {
  const auto all = rounds(9);
  server_.fill(all);
  Node node(server_, "a", all);
  server_.lose(3, 5);
  EXPECT_FALSE(node.attend(0));
  EXPECT_FALSE(node.attend(kQuiet));
  EXPECT_TRUE(node.attend(kQuiet));
  ASSERT_THAT(server_.records, SizeIs(10));
  EXPECT_EQ(node.records(), server_.in_order());
  EXPECT_EQ(type_of(server_.records.at(9)), RecordType::reseed);
}

TEST_F(Keeper, RepeatsWhatItHasWhileItWaits) {
  Node node(server_, "a", rounds(5));
  for (const double at : {0.0, 0.1, 0.4, 0.6, 0.7, 1.2}) EXPECT_FALSE(node.attend(at));
  EXPECT_THAT(haves(), SizeIs(3)) << "at 0, 0.6 and 1.2: a message may be lost";
}

TEST_F(Keeper, LeavesTheWordToTheLongestLog) {
  const auto all = rounds(9);
  server_.fill(all);
  Node longest(server_, "a", all), shorter(server_, "b", rounds(7));
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
  Node first(server_, "z", all), second(server_, "a", all);
  first.ranks["a"] = second.ranks["a"] = 1;
  first.ranks["z"] = second.ranks["z"] = 0;
  server_.lose(5, 6);
  for (const double at : {0.0, kQuiet + 1})
    for (Node* node : {&second, &first}) EXPECT_FALSE(node->attend(at));
  EXPECT_EQ(second.keeper.reseeds(), 0);
  EXPECT_EQ(first.keeper.reseeds(), 1);
}

TEST_F(Keeper, FillsTogetherWithAnotherThatHasNotHeardOfIt) {
  const auto all = rounds(8);
  server_.fill(all);
  Node mine(server_, "a", all), other(server_, "b", all);
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
  for (Node* node : {&mine, &other}) {
    EXPECT_TRUE(node->attend(kQuiet));
    EXPECT_EQ(node->records(), server_.in_order());
    EXPECT_THAT(node->records(), SizeIs(9)) << "both wrote the same RESEED, and it is there once";
  }
}

TEST_F(Keeper, WritesNoReseedWhereAnotherGoesOnAtOnce) {
  const auto all = rounds(9);
  server_.fill({all.begin(), all.begin() + 8});
  Node mine(server_, "a", {all.begin(), all.begin() + 8});
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
  Node node(server_, "a", all);
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
  Node node(server_, "a", all);
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
  Node longest(server_, "a", all), other(server_, "b", {all.begin(), all.begin() + 7});
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
  Node node(server_, "a", all);
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
  Node node(server_, "a", all);
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
  Node node(server_, "a", all);
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
  Node node(server_, "a", all);
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

TEST_F(Keeper, DoubtsWhatContradictsItsLogAndGoesOn) {
  const auto mine = rounds(8);
  Node node(server_, "a", mine);
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
  Node node(server_, "a", {all.begin(), all.begin() + 6});
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

TEST_F(Keeper, WithALogOfWhichTheBeginningIsDroppedLeavesTheWordToOneThatIsWhole) {
  const auto all = rounds(9);
  server_.fill(all);
  Node dropped(server_, "a", {all.begin(), all.begin() + 6}), whole(server_, "b", all);
  dropped.log.new_segment();
  for (size_t k = 6; k < 9; ++k) dropped.log.append(all[k]);
  dropped.log.compact(6, StepLog::Compaction::drop);
  for (Node* node : {&dropped, &whole}) node->ranks = {{"a", 0}, {"b", 1}};
  server_.lose(3, 9);
  for (const double at : {0.0, kQuiet})
    for (Node* node : {&dropped, &whole}) EXPECT_FALSE(node->attend(at)) << at;
  EXPECT_THAT(dropped.said, ElementsAre(HasSubstr("3 records"), HasSubstr("begins with record 6")));
  EXPECT_FALSE(dropped.attend(kQuiet));
  for (Node* node : {&dropped, &whole}) EXPECT_TRUE(node->attend(kQuiet + 1.1));
  EXPECT_THAT(server_.records, SizeIs(10)) << "though the other is first by its lane";
  EXPECT_EQ(dropped.log.size(), 10u);
}

TEST_F(Keeper, WithALogOfWhichTheBeginningIsDroppedFillsWhatItHas) {
  const auto all = rounds(9);
  server_.fill(all);
  Node dropped(server_, "a", {all.begin(), all.begin() + 6});
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

// Machines that come, go, are killed and lose their server train one model: all end with the same log and the weights
// that a replay of it gives.

#include "cli/loose_nodes.h"

namespace tessera {
namespace {

using namespace test;
using testing::AllOf;
using testing::HasSubstr;

TEST_F(LooseNodes, EndAlikeThoughOneLeavesOneIsKilledAndOneComesLate) {
  settings_ = {"spsa.quorum=1", "spsa.absent_limit=60000"};  // no round goes by without a machine that has a lane
  start_together({"a", "b", "c"});
  wait_for_rounds("a", 10);
  const int64_t first_of_b = machine("b"), of_c = machine("c");
  nodes_.at("b")->send(SIGINT);
  EXPECT_EQ(nodes_.at("b")->wait(kLong).exit_code, 130);
  wait_until([&] { return lanes_taken("a") == 2; }, "the lane is free");
  kill("c");  // from here on nothing moves until it is back
  start("d");
  wait_for_file("d/node.json");
  start("b");
  wait_until([&] { return machine("b") != first_of_b; }, "the node that left has a new number");
  start("c");
  expect_all_done_alike({"a", "b", "c", "d"});

  EXPECT_EQ(machine("c"), of_c);
  std::map<uint32_t, std::vector<int64_t>> of_lane;
  std::vector<int64_t> left;
  for (const RosterChange& change : changes("a")) (change.add ? of_lane[change.lane] : left).push_back(change.machine);
  EXPECT_THAT(left, testing::ElementsAre(first_of_b)) << "c goes on with its number";
  ASSERT_EQ(of_lane.size(), 4u) << "five machines in four lanes";
  EXPECT_EQ(of_lane[1].size(), 2u) << "the lane that was left was given to another";
  const std::vector<Record> all = records("a");
  const auto last = std::ranges::find(all.rbegin(), all.rend(), RecordType::round, &Record::type);
  EXPECT_THAT(last->present, testing::ElementsAre(true, true, true, true));
}

TEST_F(LooseNodes, AreCalledByTheirNamesWhereTheyAreShown) {
  steps_ = 30;
  settings_ = {"spsa.quorum=1"};
  start_together({"a", "b"});
  wait_for_rounds("a", 5);
  Process followed(trainer({"log", "a", "--last", "3", "--follow"}));
  Process lines(trainer({"log", "a", "--last", "0", "--json", "--follow"}));
  const int64_t of_a = machine("a"), of_b = machine("b");
  expect_all_done_alike({"a", "b"});
  for (const char* name : {"a", "b"}) {
    const Json log = Json::parse(expect_done(trainer({"log", name, "--json"})).out, "trainer log");
    ASSERT_EQ(log.at("machines").items().size(), 2u);
    for (const Json& line : log.at("machines").items())
      EXPECT_EQ(line.at("node").as_string(), line.at("machine").as_integer() == of_a ? "a" : "b");
    EXPECT_THAT(expect_done(trainer({"log", name, "--last", "40"})).out,
                AllOf(HasSubstr(fmt::format("{} (b) gets lane 1", of_b)),
                      testing::ContainsRegex(fmt::format("{} +a +0 +1 +[0-9]+ +0 ", of_a))));
    EXPECT_THAT(read_file(*this / name / "report.html"),
                AllOf(HasSubstr("<h2>Machines</h2>"), HasSubstr(fmt::format("<td>{}</td><td>b</td><td>1</td>", of_b))));
  }
  const Ended text = followed.wait(kLong), objects = lines.wait(kLong);
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_THAT(text.out, AllOf(testing::ContainsRegex("\n +30 +2/2 "), HasSubstr("the log has its END\n")));
  const std::string last = objects.out.substr(objects.out.rfind('\n', objects.out.size() - 2) + 1);
  EXPECT_EQ(Json::parse(last, "the last line").at("step").as_integer(), 30);
  // Names are for people: nothing hangs on them.
  write_file(*this / "a/nodes.json", "{");
  EXPECT_THAT(expect_done(trainer({"log", "a"})).out, testing::Not(HasSubstr("(b)")));
}

TEST_F(LooseNodes, LeaveAServerThatHangsWithoutWaitingForIt) {
  start("a");
  wait_for_rounds("a", 5);
  server_->hold();
  sleep_seconds(0.5);  // it waits for an answer by now
  nodes_.at("a")->send(SIGINT);
  const Ended ended = nodes_.at("a")->wait(5);  // an answer is waited for for five seconds, and for several of them
  EXPECT_EQ(ended.exit_code, 130) << ended.out << ended.err;
  EXPECT_THAT(ended.out, HasSubstr("stopped after step"));
  server_->go_on();
  start("a");
  expect_all_done_alike({"a"});
}

TEST_F(LooseNodes, GoOnWhenMostLeaveAtOnce) {
  settings_ = {"spsa.quorum=1"};
  start_together({"a", "b", "c"});
  wait_for_rounds("a", 5);
  for (const char* name : {"b", "c"}) nodes_.at(name)->send(SIGINT);
  for (const char* name : {"b", "c"}) EXPECT_EQ(nodes_.at(name)->wait(kLong).exit_code, 130);
  expect_all_done_alike({"a"});
  EXPECT_EQ(lanes_taken("a"), 1);
}

TEST_F(LooseNodes, GoOnWhenTheServerIsKilledAndStartedAgain) {
  start_together({"a", "b", "c"});
  wait_for_rounds("b", 20);
  server_->end(SIGKILL);
  EXPECT_LT(rounds("a"), steps_);
  server_->start();
  expect_all_done_alike({"a", "b", "c"});
}

TEST_F(LooseNodes, EndAlikeWhenThePackerIsKilledBetweenAppendAndApply) {
  Command first = node("a");
  first.environment["TESSERA_STOP_AT"] = "append:20";
  start("a", first);
  wait_for_rounds("a", 1);
  nodes_.at("a")->send(SIGSTOP);
  for (const char* name : {"b", "c"}) {
    start(name);
    wait_for_file(std::string(name) + "/node.json");
  }
  nodes_.at("a")->send(SIGCONT);
  EXPECT_EQ(nodes_.at("a")->wait(kLong).exit_code, 128 + SIGKILL);
  const auto had = static_cast<uint32_t>(rounds("a"));  // the next one is the engine's already
  EXPECT_GE(had, 20u);
  const int64_t number = machine("a");
  wait_for_rounds("b", had + 1);
  start("a");
  expect_all_done_alike({"a", "b", "c"});
  EXPECT_TRUE(std::ranges::any_of(changes("a"), [&](const auto& c) { return c.add && c.machine == number; }));
}

TEST_F(LooseNodes, GoOnWhenAllWereKilledBehindTheirVotes) {
  settings_ = {"spsa.quorum=1"};
  start_together({"a", "b", "c"});
  wait_for_rounds("b", 10);
  for (const char* name : {"a", "b", "c"}) nodes_.at(name)->send(SIGSTOP);  // all in about the same round
  for (const char* name : {"a", "b", "c"}) kill(name);
  for (const char* name : {"c", "a", "b"}) start(name);
  expect_all_done_alike({"a", "b", "c"});
  EXPECT_EQ(std::ssize(changes("a")), 3) << "they went on with their numbers";
}

TEST_F(LooseNodes, FillTheServerAgainThatLostItsNewestBlock) {
  start_together({"a", "b", "c"});
  wait_for_rounds("b", 20);
  server_->end(SIGKILL);
  delete_newest_block();
  EXPECT_LT(rounds("a"), steps_);
  server_->start();
  expect_all_done_alike({"a", "b", "c"});
  for (const char* name : {"a", "b", "c"}) EXPECT_EQ(count(name, RecordType::reseed), 1) << name;
}

TEST_F(LooseNodes, TellWhoHadMoreThanTheServerOfTheForkWhenItComesBack) {
  settings_ = {"spsa.quorum=0.3", "spsa.absent_limit=2"};  // one of three is enough, whoever is away
  steps_ = 50;
  start_together({"a", "b", "c"});
  wait_for_rounds("a", 10);
  kill("b");
  kill("c");
  const int64_t others = std::max(rounds("b"), rounds("c"));
  wait_for_rounds("a", others + 3);
  kill("a");
  const int64_t longest = std::ssize(records("a"));
  server_->end(SIGKILL);
  delete_newest_block();
  server_->start();
  ASSERT_LT(rounds("a"), steps_);
  for (const char* name : {"b", "c"}) start(name);
  wait_for_rounds("b", longest + 1);
  const Ended fork = expect_exit(2, node("a"));
  EXPECT_THAT(fork.err, AllOf(HasSubstr(fmt::format("record {}: the engine's (", longest - 1)),
                              HasSubstr("is not mine ("), HasSubstr("spsa.on_fork")));
  EXPECT_EQ(std::ssize(records("a")), longest) << "it keeps what it has";
  expect_all_done_alike({"b", "c"});
  EXPECT_EQ(count("b", RecordType::reseed), 1);
}

TEST_F(LooseNodes, LoseNoRoundWhereTwoPackAtOnce) {
  steps_ = 200;
  // Of the same votes two packers make the same bytes, and then it does not matter whose they are. Here they do not.
  start("a", {"spsa.quorum=1"});
  start("b", {"spsa.quorum=1", "spsa.log_loss=false"});
  const auto conflicts = [&] {
    return std::ranges::count_if(records("a"), [](const Record& r) { return (r.flags & kHadConflict) != 0; });
  };
  // A server that is held between the votes and the record has both packers' when it goes on.
  while (conflicts() == 0 && nodes_.at("a")->running()) {
    const int64_t before = rounds("a");
    server_->hold();
    sleep_seconds(0.1);  // more than the patience of the second
    server_->go_on();
    wait_until([&] { return rounds("a") > before || !nodes_.at("a")->running(); }, "a round has gone by");
  }
  expect_all_done_alike({"a", "b"});
  EXPECT_GT(conflicts(), 0);
}

TEST_F(LooseNodes, OfAnotherRecipeOrWithoutTheRightPasswordAreRefused) {
  steps_ = 3;
  expect_done(node("a"));
  EXPECT_THAT(expect_exit(2, node("b", {"optimizer.lr=1e-3"})).err,
              AllOf(HasSubstr("spsa.name: the run of this name at the server has another recipe"),
                    HasSubstr("optimizer.lr was 0.008, now 0.001"), HasSubstr("choose another name")));
  EXPECT_FALSE(std::filesystem::exists(*this / "b/run.json") || std::filesystem::exists(*this / "b/log"))
      << "what was refused leaves the folder free";
  const auto wrong = *this / "wrong.credentials";
  write_file(wrong, "b\nnot the password\n");
  std::filesystem::permissions(wrong, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  EXPECT_THAT(
      expect_exit(2, node("b", {"run.dir=c", "spsa.credentials=" + wrong.string()})).err,
      AllOf(HasSubstr("spsa.credentials: the engine refuses node \"b\""), testing::Not(HasSubstr("password\n"))));
  const std::string of_another = (server_->folder() / "a.credentials").string();
  EXPECT_THAT(expect_exit(2, node("b", {"run.dir=c", "spsa.credentials=" + of_another})).err, HasSubstr("spsa."));
}

TEST_F(LooseNodes, WithADamagedNodeFileAreToldHowToMendIt) {
  start_together({"a", "b"});
  wait_for_rounds("b", 5);
  kill("b");
  const int64_t before = machine("b");
  const std::string text = read_file(*this / "b/node.json");
  write_file(*this / "b/node.json", text.substr(0, text.size() / 2));
  EXPECT_THAT(expect_exit(2, node("b")).err, AllOf(HasSubstr("b/node.json"), HasSubstr("remove the file")));
  std::filesystem::remove(*this / "b/node.json");
  start("b");
  expect_all_done_alike({"a", "b"});
  EXPECT_NE(machine("b"), before) << "it has joined anew";
}

TEST_F(LooseNodes, PrivateVotesAreCountedBeforeTheyAreSentAndEndWithTheBudget) {
  steps_ = 40;
  // Noise for some ten rounds of one probe.
  settings_ = {"privacy.epsilon=25", "privacy.noise=0.3"};
  start("a");
  const Ended spent = nodes_.at("a")->wait(kLong);
  EXPECT_EQ(spent.exit_code, 2) << spent.out;
  EXPECT_THAT(spent.out, AllOf(HasSubstr("privacy: epsilon"), HasSubstr("drawn by the system")));
  EXPECT_THAT(spent.err,
              AllOf(HasSubstr("the budget of epsilon = 25 is spent after"), HasSubstr("this machine leaves")));
  const Json ledger = Json::parse(read_file(*this / "a/privacy.json"), "privacy.json");
  EXPECT_LE(ledger.at("epsilon_spent").as_number(), 25);
  int64_t votes = 0;
  for (const Record& record : records("a")) {
    votes += static_cast<int64_t>(record.bytes.size());
    for (const ExtraGroup& group : record.extra) votes += static_cast<int64_t>(group.bytes.size());
    EXPECT_TRUE(record.losses.empty()) << "the loss stays on its machine";
  }
  EXPECT_GT(votes, 0);
  EXPECT_GE(ledger.at("releases").as_integer(), votes);
  // Another budget is another run; a copy of the ledger that is older than the log is refused.
  EXPECT_THAT(expect_exit(2, node("a", {"privacy.epsilon=90"})).err, HasSubstr("privacy.epsilon"));
  std::filesystem::remove(*this / "a/privacy.json");
  EXPECT_THAT(expect_exit(2, node("a")).err, HasSubstr("is missing, and the log holds"));
}

TEST_F(LooseNodes, WhoseWeightsWentWrongBeforeASnapshotRebuildThemFromTheStart) {
  settings_ = {"spsa.quorum=1", "spsa.digest_every=4", "checkpoint.every=0"};
  steps_ = 40;
  start("a");
  wait_for_rounds("a", 1);
  nodes_.at("a")->send(SIGSTOP);
  Command damaged = node("c");
  damaged.environment["TESSERA_FAULT_AT"] = "weights:10";  // a number changes in memory
  start("c", damaged);
  wait_for_file("c/node.json");
  start("b");
  wait_for_file("b/node.json");
  nodes_.at("a")->send(SIGCONT);
  for (const char* name : {"a", "b", "c"}) ASSERT_TRUE(nodes_.contains(name));
  const Ended of_c = nodes_.at("c")->wait(kLong);
  EXPECT_EQ(of_c.exit_code, 0) << of_c.out << of_c.err;
  EXPECT_THAT(of_c.out, AllOf(HasSubstr("this replica's weights differ from what the log says of machine"),
                              HasSubstr("rebuilds its weights from what the run began with and its log"),
                              HasSubstr("this machine's weights are those of the log again")));
  expect_all_done_alike({"a", "b", "c"});
}

TEST_F(LooseNodes, WhoCannotRebuildTheirWeightsEndAndTheOthersGoOn) {
  settings_ = {"spsa.quorum=0.5", "spsa.digest_every=4", "checkpoint.every=0", "spsa.absent_limit=2"};
  steps_ = 60;
  start("a");
  wait_for_rounds("a", 1);
  nodes_.at("a")->send(SIGSTOP);
  Command damaged = node("c");
  damaged.environment["TESSERA_FAULT_AT"] = "weights:10";
  start("c", damaged);
  wait_for_file("c/node.json");
  start("b");
  wait_for_file("b/node.json");
  // The disk is no better than the memory.
  const auto file = *this / "c/checkpoints/start.safetensors";
  std::string bytes = read_file(file);
  bytes[bytes.size() - 2] ^= 8;
  write_file(file, bytes);
  nodes_.at("a")->send(SIGCONT);
  const Ended of_c = nodes_.at("c")->wait(kLong);
  EXPECT_EQ(of_c.exit_code, 2) << of_c.out << of_c.err;
  EXPECT_THAT(of_c.err, AllOf(HasSubstr("start.safetensors: is not what the run begins with: digest "),
                              HasSubstr("this machine's log stays as it is")));
  expect_all_done_alike({"a", "b"});
  start("c");  // a run that has ended
  expect_all_done_alike({"a", "b", "c"});
}

TEST_F(LooseNodes, TellWhoMayHaveLiedOfWeightsThatNobodyHas) {
  steps_ = 40;
  settings_ = {"spsa.quorum=1", "spsa.digest_every=4", "checkpoint.every=0"};
  Command liar = node("a");
  liar.environment["TESSERA_FAULT_AT"] = "digest:12";
  start("a", liar);
  wait_for_rounds("a", 1);
  nodes_.at("a")->send(SIGSTOP);
  start("b", {"spsa.packs=false"});
  wait_for_file("b/node.json");
  nodes_.at("a")->send(SIGCONT);
  for (const char* name : {"a", "b"}) {
    const Ended ended = nodes_.at(name)->wait(kLong);
    EXPECT_EQ(ended.exit_code, 2) << ended.out << ended.err;
    EXPECT_THAT(ended.err, AllOf(HasSubstr("this replica's weights differ from what the log says of machine"),
                                 HasSubstr("job=replay replay.round=8 replay.branch=FOLDER"), HasSubstr("spsa.signers"),
                                 HasSubstr(fmt::format("the DIGEST is of machine {} (a)", machine("a"))),
                                 HasSubstr("this machine's log stays as it is")))
        << name;
    EXPECT_EQ(rounds(name), 12) << name;
  }
  EXPECT_EQ(read_file(*this / "a/log/00000000.tsb"), read_file(*this / "b/log/00000000.tsb"));
  // From what was compared last they go on, as a run of another name.
  expect_done(trainer({(source_dir() / "recipes/one_byte_mpi.toml").string(), "job=replay", "run.dir=b",
                       "replay.round=8", "replay.branch=branch", "run.threads=1"}));
  const Words alone = {"run.dir=branch", "spsa.name=branch", "spsa.quorum=0.3", "spsa.absent_limit=1",
                       "spsa.first_deadline=1"};
  expect_done(node("a", alone));  // the lanes of the two are freed first
  EXPECT_EQ(rounds("branch"), steps_);
}

TEST_F(LooseNodes, RebuildBeforeTheyDoubtASnapshotThatTheLogTellsOf) {
  steps_ = 20;
  settings_ = {"checkpoint.every=5"};
  Command liar = node("a");
  liar.environment["TESSERA_FAULT_AT"] = "snapshot:10";
  start("a", liar);
  const Ended ended = nodes_.at("a")->wait(kLong);
  EXPECT_EQ(ended.exit_code, 2) << ended.out;
  EXPECT_THAT(ended.out, HasSubstr("rebuilds its weights from its newest snapshot and its log"));
  EXPECT_THAT(ended.err, AllOf(HasSubstr("differ from what the log says of a snapshot: digest"),
                               HasSubstr("replay.round=5 replay.branch=FOLDER"), HasSubstr("spsa.signers")));
}

TEST_F(LooseNodes, OfUnlikeBackEndsHoldTheSameBits) {
  steps_ = 10;
  // Both measure, each by its own kernels; what moves the weights is in the log alone. Plain loops are slow.
  settings_ = {"spsa.quorum=1", "spsa.absent_limit=60000", "spsa.digest_every=2", "train.batch=1",
               "train.sequence_length=32"};
  start("a");
  wait_for_rounds("a", 1);
  nodes_.at("a")->send(SIGSTOP);
  start("b", {"run.backend=reference"});
  wait_for_file("b/node.json");
  nodes_.at("a")->send(SIGCONT);
  expect_all_done_alike({"a", "b"});
  EXPECT_GE(count("a", RecordType::digest), 3);
  int64_t votes_of_b = 0;
  for (const Record& record : records("a")) votes_of_b += record.present.size() > 1 && record.present[1];
  EXPECT_GT(votes_of_b, 0);
}

TEST_F(LooseNodes, AreCheckedBeforeAnythingIsStarted) {
  const auto checked = [&](const std::string& word) { return expect_exit(2, node("a", {"--check", word})).err; };
  EXPECT_THAT(checked("spsa.credentials=absent"),
              AllOf(HasSubstr("spsa.credentials"), HasSubstr("absent\" does not exist")));
  EXPECT_THAT(checked("spsa.tls_ca=absent.pem"),
              AllOf(HasSubstr("spsa.tls_ca"), HasSubstr("absent.pem\" does not exist")));
  EXPECT_THAT(checked("spsa.signers=[\"zz\"]"), HasSubstr("spsa.signers"));
  EXPECT_THAT(checked("spsa.server=[]"), HasSubstr("no server is named"));
  EXPECT_THAT(checked("train.steps=0"), HasSubstr("train.steps is 0"));
  EXPECT_THAT(checked("spsa.aggregate=median"), HasSubstr("spsa.directions = \"shared\""));
  EXPECT_THAT(checked("spsa.quorum=0"), HasSubstr("spsa.quorum"));
  EXPECT_THAT(checked("optimizer.lr=0"), HasSubstr("optimizer.lr is 0"));
  EXPECT_EQ(expect_exit(0, node("a", {"--check"})).err, "");
  EXPECT_FALSE(std::filesystem::exists(*this / "a"));
}

}  // namespace
}  // namespace tessera

#pragma once
// Loose nodes: trainers that find each other at a NATS server, stopped and started at chosen moments, and what their
// logs hold. Nothing here is compared with a time: a test waits for what is to happen.

#include <gmock/gmock.h>

#include <csignal>

#include "steplog/nats_engine.h"
#include "steplog/nats_server.h"
#include "steplog/step_log.h"
#include "support/workbench.h"

namespace tessera::test {

class LooseNodes : public Workbench {
 protected:
  static constexpr double kLong = 120;  // seconds to wait for what comes at once on an idle machine

  void SetUp() override {
    if (!has_nats()) GTEST_SKIP() << "this build has no NATS: it needs libnats-dev";
    if (!has_nats_server()) GTEST_SKIP() << "there is no nats-server";
    server_ = std::make_unique<NatsServer>(NatsServer::Nodes{.all = "a,b,c,d", .packers = "a,b,c,d"});
  }
  void TearDown() override { nodes_.clear(); }  // before the server, which they would wait for

  /// A node that keeps its run in a folder of its name.
  Command node(const std::string& name, const Words& more = {}) const { return trainer(words_of(name, more)); }
  /// The same as ranks of one job.
  Command crew(int count, const std::string& name, const Words& more = {}) const {
    return ranks(count, words_of(name, more));
  }
  Words words_of(const std::string& name, const Words& more) const {
    const NatsSettings at = server_->settings(name);
    return joined(
        {(source_dir() / "recipes/one_byte_mpi.toml").string(), "spsa.transport=nats", "spsa.name=run",
         "spsa.node=" + name, "spsa.server=[\"" + at.servers.front() + "\"]",
         "spsa.credentials=" + at.credentials.string(), "run.dir=" + name, "train.steps=" + std::to_string(steps_),
         "spsa.first_deadline=3", "run.threads=1", "evaluate.rows=8", "evaluate.every=0"},
        joined(settings_, more));
  }
  void start(const std::string& name, const Words& more = {}) { start(name, node(name, more)); }
  void start(const std::string& name, const Command& command) { nodes_[name] = std::make_unique<Process>(command); }
  Process& operator[](const std::string& name) { return *nodes_.at(name); }
  void kill(const std::string& name) {
    nodes_.at(name)->send(SIGKILL);
    EXPECT_EQ(nodes_.at(name)->wait(kLong).exit_code, 128 + SIGKILL);
  }
  /// Starts the first, which begins the run, holds it until the others ask for lanes, and lets all go on: with
  /// spsa.quorum=1 no round goes by meanwhile. They have lanes in this order.
  void start_together(const Words& names) {
    start(names.front());
    wait_for_rounds(names.front(), 1);
    nodes_.at(names.front())->send(SIGSTOP);
    for (size_t k = 1; k < names.size(); ++k) {
      start(names[k]);
      wait_for_file(names[k] + "/node.json");  // written just before it asks
    }
    nodes_.at(names.front())->send(SIGCONT);
    wait_until([&] { return lanes_taken(names.front()) == std::ssize(names); }, "all have lanes");
  }

  template <class Condition> static void wait_until(Condition condition, const std::string& what) {
    EXPECT_TRUE(test::wait_until(condition, kLong)) << "waited in vain until " << what;
  }
  void wait_for_file(const std::string& name) const {
    wait_until([&] { return std::filesystem::exists(*this / name); }, name + " is there");
  }
  void wait_for_rounds(const std::string& node, int64_t count) const {
    wait_until([&] { return rounds(node) >= count; }, fmt::format("node {} has {} rounds", node, count));
  }

  /// The records of a node's log, also while it writes them.
  std::vector<Record> records(const std::string& node) const {
    std::vector<Record> all;
    const auto folder = *this / node / "log";
    // Between making the folder and its header there is nothing to open.
    if (!std::filesystem::exists(folder / "header.json")) return all;
    const StepLog log = StepLog::open(folder, {.access = StepLog::Access::read});
    log.for_each(0, [&](const Record& record, std::span<const std::byte>) {
      all.push_back(record);
      return true;
    });
    return all;
  }
  int64_t count(const std::string& node, RecordType type) const {
    return std::ranges::count(records(node), type, &Record::type);
  }
  int64_t rounds(const std::string& node) const { return count(node, RecordType::round); }
  int64_t lanes_taken(const std::string& node) const {
    int64_t taken = 0;
    for (const RosterChange& change : changes(node)) taken += change.add ? 1 : -1;
    return taken;
  }
  /// All roster changes, in order.
  std::vector<RosterChange> changes(const std::string& node) const {
    std::vector<RosterChange> all;
    for (const Record& record : records(node)) all.insert(all.end(), record.roster.begin(), record.roster.end());
    return all;
  }
  /// The number that a node has now.
  int64_t machine(const std::string& node) const {
    return Json::parse(read_file(*this / node / "node.json"), node).at("machine").as_integer();
  }

  /// The nodes end, with one log and the weights that a fresh process makes of it.
  void expect_all_done_alike(const Words& names) {
    std::vector<std::string> digests;
    for (const std::string& name : names) {
      const Ended ended = nodes_.at(name)->wait(kLong);
      EXPECT_EQ(ended.exit_code, 0) << name << ": " << ended.out << ended.err;
      digests.push_back(digest_in(ended.out));
    }
    const Command replay = trainer({(source_dir() / "recipes/one_byte_mpi.toml").string(), "job=replay",
                                    "replay.log=" + names.front(), "run.dir=replayed", "run.threads=1"});
    const std::string digest = Json::parse(expect_done(replay).out, "replay").at("digest").as_string();
    EXPECT_THAT(digests, testing::Each(digest));
    for (const std::string& name : names) {
      EXPECT_EQ(read_file(*this / name / "log/00000000.tsb"), read_file(*this / names.front() / "log/00000000.tsb"));
      EXPECT_EQ(rounds(name), steps_);
      EXPECT_EQ(count(name, RecordType::end), 1);
    }
  }
  static std::string digest_in(const std::string& out) {
    const size_t at = out.rfind("digest ");
    return at == std::string::npos ? "none" : out.substr(at + 7, 32);
  }

  /// The newest block of the log's stream, while the server is down. With few records it holds all of them.
  void delete_newest_block() const {
    std::vector<std::pair<int, std::filesystem::path>> blocks;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(server_->folder() / "store"))
      if (entry.path().extension() == ".blk" && entry.path().string().find("TESSERA_run/msgs") != std::string::npos)
        blocks.emplace_back(std::stoi(entry.path().stem()), entry.path());
    ASSERT_FALSE(blocks.empty());
    std::filesystem::remove(std::ranges::max(blocks).second);
  }

  int64_t steps_ = 100;
  Words settings_;  // of all nodes
  std::unique_ptr<NatsServer> server_;
  std::map<std::string, std::unique_ptr<Process>> nodes_;
};

}  // namespace tessera::test

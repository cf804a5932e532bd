#pragma once
// Commands on weights in a fixed budget, and what they find.

#include <csignal>

#include "support/workbench.h"

namespace tessera::test {

// Of rps.toml.
inline constexpr int64_t kWeights = 26784, kShared = 24576, kCells = 4915, kTrained = kCells + kWeights - kShared;

class Sharing : public test::Workbench {
 protected:
  Words rps(const Words& more = {}) const { return joined({"rps.toml"}, more); }
  /// rps.toml trained by one-byte SPSA.
  Words spsa(const Words& more = {}) const {
    return joined(rps({"train.estimator=spsa", "train.steps=40", "train.batch=2", "spsa.probes=3", "spsa.eps=1e-2",
                       "spsa.digest_every=8", "checkpoint.every=10", "checkpoint.keep=9", "optimizer.name=sgd",
                       "optimizer.lr=1e-3"}),
                  more);
  }
  /// A MoS adapter on the pool that a run left.
  Words mos_on(const std::string& pool, const Words& more = {}) const {
    Words words = rps({"adapter.method=mos", "adapter.equivalent_rank=2", "adapter.rank=3", "adapter.shards=2"});
    if (!pool.empty()) words.push_back("sharing.load=" + pool + "/sharing");
    return joined(words, more);
  }
  double evaluate(const Words& words) { return loss_in(expect_done(trainer(joined(words, {"job=evaluate"}))).out); }
  static double loss_in(const std::string& out) {
    return Json::parse(out.substr(out.find('{')), "evaluate").at("loss").as_number();
  }
  /// The loss of a dense model in the run's model/, read by a recipe that shares nothing.
  double dense_loss(const std::string& run) {
    return evaluate({"full.toml", "run.dir=elsewhere", "model.path=" + run + "/model", "model.init=pretrained"});
  }
  /// "file:line:column" of a text in rps.toml.
  std::string place(const std::string& text) const {
    const std::string recipe = test::read_file(*this / "rps.toml");
    const size_t at = recipe.find(text);
    return "rps.toml:" + std::to_string(test::occurrences(recipe.substr(0, at), "\n") + 1) + ":";
  }
  /// Ends the command, by its process or one of its children, when the run's metrics have so many lines.
  void interrupt(const test::Command& command, const std::string& run, int signal, int64_t lines = 12, int child = -1) {
    test::Process process(command);
    wait_for_lines(run, lines);
    const auto children = process.children();
    kill(child >= 0 && child < static_cast<int>(children.size()) ? children[child] : process.pid(), signal);
    EXPECT_FALSE(process.wait(60).timed_out);
  }
};

}  // namespace tessera::test

// Recipes put together at random over all jobs, methods, keys and values, looked at with --check, and run where it
// accepts them. What --check accepts has to run: no fault of the program's own, no signal, no refusal that comes only
// then. Nor may a run change a file that it reads. 20 seconds; with TESSERA_LONG=1 five minutes.

#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <random>
#include <set>
#include <sstream>

#include "support/random_seed.h"
#include "support/workbench.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using Words = std::vector<std::string>;
using Clock = std::chrono::steady_clock;

/// What --explain says of a key.
struct Key {
  std::string name, kind;
  std::vector<std::string> values;  // of "one of"
  double least = -1e300, most = 1e300;
};

std::string after(const std::string& line, const std::string& start) {
  return line.rfind(start, 0) == 0 ? line.substr(start.size()) : "";
}

void read_allowed(const std::string& text, Key& key) {
  if (const std::string list = after(text, "one of: "); !list.empty()) {
    for (size_t begin = list.find('"'); begin != std::string::npos;) {
      const size_t end = list.find('"', begin + 1);
      key.values.push_back(list.substr(begin + 1, end - begin - 1));
      begin = list.find('"', end + 1);
    }
  } else if (const std::string bound = after(text, "at least "); !bound.empty()) {
    key.least = std::stod(bound);
  } else if (text.rfind("more than ", 0) == 0) {
    key.least = 0;
  } else {
    std::istringstream range(text);
    std::string to;
    range >> key.least >> to >> key.most;
  }
}

std::vector<Key> keys_of(const std::string& explained) {
  std::vector<Key> keys;
  std::istringstream text(explained);
  for (std::string line; std::getline(text, line);) {
    if (!line.empty() && line[0] != ' ') keys.push_back({.name = line, .kind = {}, .values = {}});
    if (const std::string kind = after(line, "  kind: "); !kind.empty()) keys.back().kind = kind;
    if (const std::string allowed = after(line, "  allowed: "); !allowed.empty()) read_allowed(allowed, keys.back());
  }
  return keys;
}

/// Values that would make a run long; larger ones are only looked at with --check.
const std::map<std::string, double> kLargestThatRuns = {
    {"train.steps", 3},          {"train.epochs", 0.5}, {"train.batch", 32},      {"train.sequence_length", 96},
    {"train.micro_batch", 64},   {"spsa.probes", 12},   {"spsa.pool_size", 4096}, {"generate.max_new_tokens", 8},
    {"generate.batch", 64},      {"run.threads", 8},    {"spsa.machines", 1},     {"spsa.machine", 0},
    {"sharing.compression", 1e9}};

struct Draw {
  std::mt19937_64 random;
  int64_t below(int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); }
  bool one_in(int64_t n) { return below(n) == 0; }
  template <class List> const auto& any(const List& list) {
    return list[static_cast<size_t>(below(static_cast<int64_t>(std::size(list))))];
  }
};

const Words kTexts = {"",  "prompt", "completion", "text", "label", "{prompt}", "{prompt} =", "{",
                      "}", "a b",    "never",      "auto", "é",     "../out",   "out.jsonl",  "metrics.jsonl"};
const Words kPaths = {
    "base",     "train.jsonl", "eval.jsonl", "reviews.jsonl",    "plain.txt",       "missing",         "",
    ".",        "lora-run",    "mos-run",    "lora-run/adapter", "mos-run/adapter", "rps-run/sharing", "full-run/model",
    "spsa-run", "new",         "full.toml",  "empty.jsonl"};
const Words kLists = {
    "[]",      "[\"q_proj\"]", "[\"all\"]",         "[\"linears\"]", "[\"mlp\"]",     "[\"(\"]",
    "[\"\"]",  "[\"[\"]",      "[\" ba\",\" de\"]", "[\"0\",\"1\"]", "[\"copy ba\"]", "[\"embedding\",\"head\"]",
    "[\".*\"]"};

class RecipeFuzz : public test::Workbench {
 protected:
  RecipeFuzz() {
    std::string reviews;
    for (int i = 0; i < 12; ++i)
      reviews += "{\"prompt\": \"copy ba =\", \"text\": \"ba de mi\", \"completion\": \"ba\", \"label\": " +
                 std::to_string(i % 2) + "}\n";
    test::write_file(*this / "reviews.jsonl", reviews);
    test::write_file(*this / "plain.txt", "ba de mi su\n\nga ra ti\n");
    test::write_file(*this / "empty.jsonl", "");
    for (const char* method : {"full", "lora", "mos", "rps", "spsa"})
      expect_done(trainer({std::string(method) + ".toml", "train.steps=3", "checkpoint.every=2",
                           "run.dir=" + std::string(method) + "-run"}));
    keys_ = keys_of(expect_done(trainer({"--explain", "all"})).out);
  }

  /// A value as it stands behind "key=", and whether a run with it is short.
  std::pair<std::string, bool> value_of(const Key& key) {
    if (!key.values.empty()) return {draw_.one_in(15) ? draw_.any(kTexts) : draw_.any(key.values), true};
    if (key.kind == "true or false") return {draw_.one_in(2) ? "true" : "false", true};
    if (key.kind == "a list of texts") return {draw_.any(kLists), true};
    if (key.kind == "a path in quotes") return {draw_.any(kPaths), true};
    if (key.kind == "text in quotes") return {draw_.any(kTexts), true};
    return number_of(key);
  }

  std::pair<std::string, bool> number_of(const Key& key) {
    static const Words odd = {"nan",  "inf", "-inf", "x", "", "1e400", "1e39", "1e-46", "-1", "9223372036854775808",
                              "0x10", "2.5"};
    if (draw_.one_in(8)) return {draw_.any(odd), false};
    const auto found = kLargestThatRuns.find(key.name);
    const double runs = std::min(key.most, found == kLargestThatRuns.end() ? 1e300 : found->second);
    const bool edge = draw_.one_in(6);
    const double from = std::max(key.least, -64.0), to = edge ? key.most : std::min(runs, std::max(from, 0.0) + 64);
    const bool whole = key.kind == "a whole number";
    double value =
        edge ? (draw_.one_in(2) ? from : to) : from + (to - from) * static_cast<double>(draw_.below(1001)) / 1000;
    if (whole) value = std::min(std::floor(value), 9e15);
    std::ostringstream text;
    text.precision(17);
    text << value;
    return {text.str(), value <= runs};
  }

  struct Recipe {
    Words words;
    bool runs = true;
  };

  Recipe compose() {
    static const Words recipes = {"full.toml", "lora.toml", "mos.toml", "rps.toml", "spsa.toml"};
    static const Words jobs = {"train", "train", "train", "evaluate", "generate", "export", "replay", "prepare"};
    Recipe recipe{{draw_.any(recipes), "job=" + draw_.any(jobs), "train.steps=3", "generate.max_new_tokens=4"}};
    static const Words folders = {"new", "new", "new", "full-run", "lora-run", "mos-run", "rps-run", "spsa-run"};
    recipe.words.push_back("run.dir=" + draw_.any(folders));
    for (int64_t count = draw_.below(5); count > 0; --count) {
      const Key& key = draw_.any(keys_);
      if (key.name == "job" || key.name == "model.path") continue;
      const auto [value, runs] = value_of(key);
      recipe.runs = recipe.runs && runs;
      const size_t dot = key.name.find('.');
      const std::string quoted =
          key.kind.find("quotes") != std::string::npos && draw_.one_in(2) ? "\"" + value + "\"" : value;
      recipe.words.push_back(draw_.one_in(12)
                                 ? key.name.substr(0, dot) + "={" + key.name.substr(dot + 1) + "=" + quoted + "}"
                                 : key.name + "=" + quoted);
    }
    return recipe;
  }

  /// What was wrong, or nothing.
  std::string fault_of(const Recipe& recipe, const fs::path& place) {
    const auto in_place = [&](Words words) {
      test::Command command = trainer(std::move(words));
      command.folder = place;
      return test::run(command, 60);
    };
    Words check = recipe.words;
    check.push_back("--check");
    const test::Ended looked = in_place(check);
    if (looked.timed_out) return "--check did not end";
    if (looked.exit_code != 0 && looked.exit_code != 2) return ending("--check", looked);
    if (looked.exit_code == 2 && looked.err.empty()) return "--check refused without a word";
    // What a run's folder lacks is told in a note: it is no fault of the recipe.
    const bool is_accepted = looked.exit_code == 0 && looked.out.find("note: as things stand") == std::string::npos;
    if (!is_accepted || !recipe.runs) return "";
    const auto before = inputs_of(place);
    const test::Ended ran = in_place(recipe.words);
    if (ran.timed_out) return "the run did not end";
    // What no recipe shows: a run that diverges, and values of weights, those of a base that is drawn among them.
    for (const char* known :
         {"not finite", "begins with other values of the trained tensors", "was saved with base_fingerprint"})
      if (ran.exit_code == 2 && ran.err.find(known) != std::string::npos) return "";
    if (ran.exit_code != 0) return ending("the run that --check had accepted", ran);
    const auto after = inputs_of(place);
    for (const auto& [file, bytes] : before)
      if (const auto found = after.find(file); found == after.end() || found->second != bytes)
        return "the run changed " + fs::path(file).filename().string() + ", which it reads";
    return "";
  }

  static std::string ending(const std::string& what, const test::Ended& ended) {
    return what + " ended with " + std::to_string(ended.exit_code) + ": " + ended.err.substr(0, 600);
  }

  static std::map<std::string, std::string> inputs_of(const fs::path& place) {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(place / "base"))
      if (entry.is_regular_file()) files[entry.path().string()] = test::read_file(entry.path());
    for (const auto& entry : fs::directory_iterator(place))
      if (entry.is_regular_file() && entry.path().filename() != "out.jsonl")
        files[entry.path().string()] = test::read_file(entry.path());
    return files;
  }

  std::vector<Key> keys_;
  uint32_t seed_ = test::random_seed();
  Draw draw_;
};

TEST_F(RecipeFuzz, WhatACheckAcceptsRuns) {
  ASSERT_GT(keys_.size(), 80u);
  const auto end = Clock::now() + std::chrono::seconds(test::tests_are_long() ? 300 : 20);
  std::set<std::string> told;
  int64_t count = 0;
  for (; Clock::now() < end && told.size() < 12; ++count) {
    draw_.random.seed(seed_ + static_cast<uint32_t>(count));
    const Recipe recipe = compose();
    test::TemporaryFolder place;
    fs::copy(path(), place.path(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
    const std::string fault = fault_of(recipe, place.path());
    if (fault.empty() || !told.insert(fault.substr(0, 90)).second) continue;
    std::string line = "trainer";
    for (const std::string& word : recipe.words) line += " '" + word + "'";
    ADD_FAILURE() << "TESSERA_SEED=" << seed_ + static_cast<uint32_t>(count) << "\n" << line << "\n" << fault;
  }
  std::cout << count << " recipes\n";
}

}  // namespace
}  // namespace tessera

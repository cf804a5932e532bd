#pragma once
// Batches of prompts that begin alike, for tests of the prefix tree, and what is true of any such tree.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "core/random.h"
#include "infer/prefix_tree.h"

namespace tessera::test {

using Tokens = std::vector<int32_t>;

/// A prompt made of runs: {{1, 10}, {2, 6}} is ten times token 1, then six times token 2.
inline Tokens runs(std::initializer_list<std::pair<int32_t, int>> list) {
  Tokens tokens;
  for (const auto& [token, count] : list) tokens.insert(tokens.end(), static_cast<size_t>(count), token);
  return tokens;
}

class PromptBatch {
 public:
  explicit PromptBatch(std::vector<Tokens> prompts) : tokens_(std::move(prompts)), requests_(tokens_.size()) {
    for (const Tokens& prompt : tokens_) spans_.emplace_back(prompt);
    std::iota(requests_.begin(), requests_.end(), 0);
  }
  PromptBatch(PromptBatch&&) = default;

  Prompts prompts() const { return spans_; }
  std::span<const int32_t> requests() const { return requests_; }
  const Tokens& operator[](int32_t request) const { return tokens_[static_cast<size_t>(request)]; }
  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }
  int64_t tokens() const {
    return std::accumulate(tokens_.begin(), tokens_.end(), int64_t{0},
                           [](int64_t sum, const Tokens& p) { return sum + static_cast<int64_t>(p.size()); });
  }

 private:
  std::vector<Tokens> tokens_;
  std::vector<std::span<const int32_t>> spans_;
  std::vector<int32_t> requests_;
};

/// Draws in order, from one key.
class Draws {
 public:
  explicit Draws(uint64_t key) : key_(key) {}
  int32_t below(int32_t n) { return static_cast<int32_t>(draw_below(key_, next_++, static_cast<uint64_t>(n))); }
  int32_t between(int32_t low, int32_t high) { return low + below(high - low + 1); }

 private:
  uint64_t key_, next_ = 0;
};

/// Up to `most` prompts. Most begin as an earlier one does, up to a random place, and go on with runs of few different
/// tokens, so that there are headers on several levels, prefixes of others and equal prompts.
inline PromptBatch random_batch(uint64_t seed, int32_t most) {
  Draws draws(hash_key({0x707265666978, seed}));
  const int32_t alphabet = draws.between(1, 4), longest = draws.between(1, 12);
  std::vector<Tokens> prompts(static_cast<size_t>(draws.between(1, most)));
  for (size_t i = 0; i < prompts.size(); ++i) {
    Tokens& prompt = prompts[i];
    if (i > 0 && draws.below(4) > 0) {
      const Tokens& like = prompts[static_cast<size_t>(draws.below(static_cast<int32_t>(i)))];
      prompt.assign(like.begin(), like.begin() + draws.between(0, static_cast<int32_t>(like.size())));
    }
    for (int32_t more = draws.below(4); more > 0 || prompt.empty(); --more)
      prompt.insert(prompt.end(), static_cast<size_t>(draws.between(1, longest)), draws.below(alphabet));
  }
  return PromptBatch(std::move(prompts));
}

/// Headers, examples below them, questions below these and answers at last, up to three of each below one.
inline PromptBatch three_levels(uint64_t seed) {
  Draws draws(hash_key({0x6c6576656c73, seed}));
  std::vector<Tokens> prompts;
  int32_t token = 0;
  const auto extend = [&](Tokens base, int32_t longest) {
    base.insert(base.end(), static_cast<size_t>(draws.between(1, longest)), ++token);
    return base;
  };
  for (int32_t headers = draws.between(1, 2); headers > 0; --headers) {
    const Tokens header = extend({}, 20);
    for (int32_t examples = draws.between(1, 3); examples > 0; --examples) {
      const Tokens example = extend(header, 20);
      for (int32_t questions = draws.between(1, 3); questions > 0; --questions) {
        const Tokens question = extend(example, 10);
        for (int32_t answers = draws.between(1, 3); answers > 0; --answers) prompts.push_back(extend(question, 3));
      }
    }
  }
  return PromptBatch(std::move(prompts));
}

/// Number of different non-empty prefixes, by a set of all of them.
inline int64_t count_prefixes(const PromptBatch& batch, std::span<const int32_t> requests) {
  std::set<Tokens> prefixes;
  for (const int32_t request : requests)
    for (size_t n = 1; n <= batch[request].size(); ++n)
      prefixes.emplace(batch[request].begin(), batch[request].begin() + static_cast<ptrdiff_t>(n));
  return static_cast<int64_t>(prefixes.size());
}

/// What holds for the tree of every mode: runs are not empty, spell each request's prompt from the root down, and every
/// request ends at one node; links and counts agree with the runs.
inline void expect_sound(const PrefixTree& tree, const PromptBatch& batch, std::span<const int32_t> requests) {
  std::vector<int32_t> ends;
  ASSERT_FALSE(tree.nodes.empty());
  ASSERT_EQ(tree.nodes[0].parent, -1);
  ASSERT_EQ(tree.nodes[0].end, 0);
  for (int32_t v = 0; v < static_cast<int32_t>(tree.nodes.size()); ++v) {
    const PrefixTree::Node& node = tree.nodes[static_cast<size_t>(v)];
    int32_t leaves = node.terminal_end - node.terminal_begin, next = v + 1;
    for (; next < node.subtree_end; next = tree.nodes[static_cast<size_t>(next)].subtree_end) {
      ASSERT_EQ(tree.nodes[static_cast<size_t>(next)].parent, v);
      ASSERT_EQ(tree.nodes[static_cast<size_t>(next)].begin, node.end);
      leaves += tree.nodes[static_cast<size_t>(next)].leaves;
    }
    ASSERT_EQ(next, node.subtree_end);
    ASSERT_EQ(leaves, node.leaves);
    if (v > 0) {
      ASSERT_LT(node.begin, node.end);
    }
    ASSERT_EQ(node.terminal_begin, static_cast<int32_t>(ends.size()));
    for (int32_t t = node.terminal_begin; t < node.terminal_end; ++t) {
      const int32_t request = tree.terminals[static_cast<size_t>(t)];
      if (t > node.terminal_begin) {
        ASSERT_LT(tree.terminals[static_cast<size_t>(t) - 1], request);
      }
      ends.push_back(request);
      ASSERT_EQ(static_cast<int32_t>(batch[request].size()), node.end);
      for (int32_t u = v; u > 0; u = tree.nodes[static_cast<size_t>(u)].parent) {
        const PrefixTree::Node& run = tree.nodes[static_cast<size_t>(u)];
        ASSERT_TRUE(std::equal(batch[request].begin() + run.begin, batch[request].begin() + run.end,
                               batch[run.request].begin() + run.begin));
      }
    }
  }
  ASSERT_EQ(ends, tree.terminals);
  std::sort(ends.begin(), ends.end());
  ASSERT_TRUE(std::equal(ends.begin(), ends.end(), requests.begin(), requests.end()));
}

}  // namespace tessera::test

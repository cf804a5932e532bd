#pragma once
// Schedules played through without a model, with all that a pass would read and write.

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <map>
#include <set>
#include <vector>

#include "core/random.h"
#include "infer/batch_plan.h"
#include "infer/schedule.h"

namespace tessera::test {

/// Draws of a trial, one after another.
struct Draws {
  uint64_t key, step = 0;
  explicit Draws(uint64_t trial) : key(mix64(trial + 77)) {}
  int64_t below(int64_t n) { return static_cast<int64_t>(draw_below(key, step++, static_cast<uint64_t>(n))); }
};

/// Prompts over a small alphabet, many of which begin alike.
inline std::vector<Request> random_requests(Draws& draws, int64_t most) {
  std::vector<Request> requests(static_cast<size_t>(1 + draws.below(most)));
  for (size_t i = 0; i < requests.size(); ++i) {
    Request& r = requests[i];
    if (i > 0 && draws.below(3) > 0) {
      const auto& other = requests[static_cast<size_t>(draws.below(static_cast<int64_t>(i)))].prompt;
      const int64_t keep = draws.below(std::ssize(other) + 1);
      r.prompt.assign(other.begin(), other.begin() + keep);
    }
    const int64_t more = draws.below(40) + (r.prompt.empty() ? 1 : 0);
    for (int64_t t = 0; t < more; ++t) r.prompt.push_back(static_cast<int32_t>(draws.below(3)));
    r.max_tokens = draws.below(5) == 0 && r.prompt.size() > 1 ? 0 : 1 + draws.below(30);
    r.n = r.best_of = draws.below(4) == 0 ? 1 + draws.below(5) : 1;
    if (draws.below(6) == 0) r.adapter = "a";
    if (r.max_tokens > 0 && r.n == 1 && draws.below(4) == 0) r.beams.width = 2 + draws.below(5);
  }
  return requests;
}

constexpr int64_t kPage = 8;

inline ScheduleLimits limits(const BatchPlan& plan, int64_t bundles, int64_t step_tokens, int64_t sequences) {
  return {.step_tokens = step_tokens,
          .sequences = std::max<int64_t>(plan.widest, sequences),
          .bundles = bundles,
          .pages_per_bundle = 6,
          .page_tokens = kPage};
}

/// Plays a schedule and checks each step: rows of one step are within its budget, and what a row needs is there: pages
/// that hold its path's tokens and those of its tail, whatever the beams of a search continue.
class Play {
 public:
  Play(const BatchPlan& plan, const ScheduleLimits& l, uint64_t trial = 0)
      : plan_(plan),
        limits_(l),
        draws_(trial + 90'000),
        pages_(static_cast<size_t>(l.bundles)),
        schedule(plan.tree, plan.order, plan.demands, l),
        lengths(static_cast<size_t>(schedule.sequences()), 0),
        texts(static_cast<size_t>(schedule.tails())) {}

  /// @param ends  after how many tokens each sequence ends
  void run(const std::vector<int64_t>& ends, const std::function<void(Play&)>& between = {}) {
    for (ScheduledStep step = schedule.next(); !step.empty(); step = schedule.next()) {
      take(step, ends);
      if (between) between(*this);
      ASSERT_LT(++steps, 100'000);
    }
  }

  /// Every bundle that is handed out stands in the table of a node or of a tail.
  void expect_accounted() const {
    std::set<int32_t> held;
    const auto add = [&](std::span<const int32_t> table) { held.insert(table.begin(), table.end()); };
    for (int32_t v = 0; v < std::ssize(plan_.tree.nodes); ++v) add(schedule.node_table(v));
    for (int32_t s = 0; s < schedule.sequences(); ++s)
      for (int64_t t = 0; t < schedule.tails_of(s).count(); ++t) add(schedule.tails_of(s).table(t));
    ASSERT_EQ(schedule.pages().pages_in_use(), std::ssize(held) * limits_.pages_per_bundle);
    ASSERT_EQ(schedule.pages().free_bundles(), limits_.bundles - std::ssize(held));
  }

  void take(const ScheduledStep& step, const std::vector<int64_t>& ends) {
    look_at(step);
    write_pages(step);
    if (computed) computed();
    for (const Work& w : step.work)
      if (w.sequence >= 0 && w.tail == 0 &&
          w.end - schedule.begin_of(w.sequence) == lengths[static_cast<size_t>(w.sequence)])
        extend(w.sequence, ends);
    for (const int32_t s : step.starts) extend(s, ends);
    for (const int32_t r : step.prompts) ended.insert(r);
  }

 private:
  void extend(int32_t s, const std::vector<int64_t>& ends) {
    if (!schedule.is_live(s)) return;
    const auto first = static_cast<size_t>(schedule.first_tail(s));
    const int64_t tails = schedule.tails_of(s).count();
    const int32_t width = plan_.demands[static_cast<size_t>(schedule.request_of(s))].width;
    if (++lengths[static_cast<size_t>(s)] == ends[static_cast<size_t>(s)]) {
      schedule.finish(s);
    } else if (width == 1) {
      texts[first].push_back(++tokens_);
      schedule.append(s);
    } else {
      std::vector<int32_t> parents(static_cast<size_t>(draws_.below(8) == 0 ? 1 + draws_.below(width) : width));
      std::vector<std::vector<int64_t>> next;
      for (int32_t& parent : parents) {
        parent = static_cast<int32_t>(draws_.below(tails));
        next.push_back(texts[first + static_cast<size_t>(parent)]);
        next.back().push_back(++tokens_);
      }
      std::move(next.begin(), next.end(), texts.begin() + static_cast<ptrdiff_t>(first));
      schedule.branch(s, parents);
    }
  }

  /// What entry i of a node's or a tail's pages has to hold.
  int64_t token(const Work& w, int64_t i) const {
    if (w.node < 0) return texts[static_cast<size_t>(schedule.tail_of(w))][static_cast<size_t>(i)];
    return -1000 * (w.node + 1) - i;
  }
  std::span<const int32_t> table_of(const Work& w) const {
    return w.node >= 0 ? schedule.node_table(w.node) : schedule.tail_table(w);
  }
  int64_t& entry(std::span<const int32_t> table, int64_t i) {
    return pages_[static_cast<size_t>(table[static_cast<size_t>(i / kPage)] / limits_.pages_per_bundle)]
                 [static_cast<size_t>(i % kPage)];
  }
  void expect_held(const Work& w, int64_t tokens) {
    for (int64_t i = 0; i < tokens; ++i)
      if (entry(table_of(w), i) != token(w, i)) ADD_FAILURE() << "node " << w.node << ", sequence " << w.sequence;
  }

  /// Does to pages what a pass does, and looks at what its rows read.
  void write_pages(const ScheduledStep& step) {
    const auto at = [&](int32_t first) { return static_cast<size_t>(first / limits_.pages_per_bundle); };
    for (const BundleCopy& c : step.copies) pages_[at(c.to)] = pages_[at(c.from)];
    const auto begin_of = [&](const Work& w) {
      return w.node >= 0 ? plan_.tree.nodes[static_cast<size_t>(w.node)].begin : schedule.begin_of(w.sequence);
    };
    for (const Work& w : step.work)
      for (int32_t i = w.begin - begin_of(w); i < w.end - begin_of(w); ++i) entry(table_of(w), i) = token(w, i);
    for (const Work& w : step.work) {
      expect_held(w, w.end - begin_of(w));
      const int32_t node = w.node >= 0 ? plan_.tree.nodes[static_cast<size_t>(w.node)].parent
                                       : schedule.node_of(schedule.request_of(w.sequence));
      for (const int32_t v : plan_.tree.path_to(node)) {
        const PrefixTree::Node& n = plan_.tree.nodes[static_cast<size_t>(v)];
        expect_held({v, -1, n.begin, n.end}, n.end - n.begin);
      }
    }
  }

  void look_at(const ScheduledStep& step) {
    int64_t rows = 0;
    std::map<int32_t, int32_t> done;  // of nodes in this step
    for (const Work& w : step.work) {
      rows += w.end - w.begin;
      EXPECT_LT(w.begin, w.end);
      const int32_t node = w.node >= 0 ? w.node : schedule.node_of(schedule.request_of(w.sequence));
      for (int32_t v = plan_.tree.nodes[static_cast<size_t>(node)].parent; v > 0;
           v = plan_.tree.nodes[static_cast<size_t>(v)].parent)
        EXPECT_EQ(schedule.computed(v), plan_.tree.nodes[static_cast<size_t>(v)].end);
      const auto table = table_of(w);
      const int32_t begin =
          w.node >= 0 ? plan_.tree.nodes[static_cast<size_t>(w.node)].begin : schedule.begin_of(w.sequence);
      EXPECT_GE(std::ssize(table) * kPage, w.end - begin);
      if (w.node >= 0) {
        EXPECT_EQ(schedule.computed(w.node), w.end);
      }
    }
    EXPECT_LE(rows, limits_.step_tokens);
    for (const int32_t s : step.starts) {
      const int32_t v = schedule.node_of(schedule.request_of(s));
      EXPECT_EQ(schedule.computed(v), plan_.tree.nodes[static_cast<size_t>(v)].end);
    }
    EXPECT_LE(schedule.pages().pages_in_use(), limits_.bundles * limits_.pages_per_bundle);
  }

  const BatchPlan& plan_;
  ScheduleLimits limits_;
  Draws draws_;
  std::vector<std::array<int64_t, kPage>> pages_;  // of each bundle
  int64_t tokens_ = 0;

 public:
  Schedule schedule;
  std::vector<int64_t> lengths;             // of sequences
  std::vector<std::vector<int64_t>> texts;  // of tails; every new token is another one
  std::set<int32_t> ended;
  std::function<void()> computed{};  // called behind the rows of a step, when no token of it is chosen
  int64_t steps = 0;
};

inline std::vector<int64_t> whole_lengths(const BatchPlan& plan) {
  std::vector<int64_t> ends;
  for (const int32_t r : plan.order)
    ends.insert(ends.end(), static_cast<size_t>(plan.demands[static_cast<size_t>(r)].samples),
                plan.demands[static_cast<size_t>(r)].new_tokens);
  return ends;
}

}  // namespace tessera::test

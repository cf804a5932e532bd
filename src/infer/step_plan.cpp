#include "infer/step_plan.h"

#include <algorithm>
#include <map>

#include "core/error.h"

namespace tessera {
namespace {

/// Rows [begin, end) of the step.
struct RowRange {
  int32_t begin = 0, end = 0;
  bool empty() const { return begin == end; }
};

class Planner {
 public:
  Planner(const Schedule& schedule, std::span<const Work> work, const PlanShape& shape, StepPlan& plan)
      : schedule_(schedule), work_(work), shape_(shape), plan_(plan) {}

  void run() {
    find_rows();
    // Preorder, and behind a node its sequences: what a row attends to comes in ascending order.
    auto tail = work_.begin();
    for (const auto& [v, rows] : nodes_) {
      visit_node(v, rows);
      for (; tail != work_.end() && node_of(*tail) <= v; ++tail)
        if (tail->node < 0) visit_tail(*tail);
    }
  }

 private:
  struct NodeRows {
    RowRange below;          // of the node and all below it
    RowRange own{};          // of the node
    int32_t end = 0;         // position behind its last row that is computed
    int32_t run_begin = -1;  // of its path among the plan's runs
    int64_t table = -1;      // of it among the plan's tables
  };

  const PrefixTree::Node& node(int32_t v) const { return schedule_.tree().nodes[static_cast<size_t>(v)]; }
  int32_t node_of(const Work& w) const {
    return w.node >= 0 ? w.node : schedule_.node_of(schedule_.request_of(w.sequence));
  }
  RowRange rows_of(size_t work) const { return {plan_.first_rows[work], plan_.first_rows[work + 1]}; }

  void find_rows() {
    for (size_t i = 0; i < work_.size(); ++i) {
      const RowRange rows = rows_of(i);
      for (int32_t v = node_of(work_[i]); v > 0; v = node(v).parent) {
        const auto [place, is_new] = nodes_.try_emplace(v);
        if (is_new) place->second.below.begin = rows.begin, place->second.end = schedule_.computed(v);
        place->second.below.end = rows.end;
      }
      if (work_[i].node >= 0) nodes_[work_[i].node].own = rows;
    }
  }

  int64_t add_table(std::span<const int32_t> table) {
    const auto at = std::ssize(plan_.tables);
    plan_.tables.insert(plan_.tables.end(), table.begin(), table.end());
    return at;
  }

  void add_run(int32_t first, int32_t length, int64_t table) {
    plan_.runs.push_back({.first = first,
                          .head_step = 0,
                          .page_step = 1,
                          .length_step = 0,
                          .table = table,
                          .length = static_cast<int64_t>(plan_.lengths.size())});
    plan_.lengths.push_back(length);
  }

  /// Adds the runs from the root to the node. @return the first of them
  int32_t add_path(int32_t v) {
    const auto first = static_cast<int32_t>(plan_.runs.size());
    for (const int32_t at : schedule_.tree().path_to(v)) {
      NodeRows& rows = nodes_.at(at);
      if (rows.table < 0) rows.table = add_table(schedule_.node_table(at));
      add_run(node(at).begin, rows.end - node(at).begin, rows.table);
    }
    return first;
  }

  /// The position from which on what follows `position` attends by itself.
  int32_t cut_at(int32_t position) const { return shape_.deterministic ? position - position % kKeyBlock : position; }

  void add_visit(RowRange rows, int32_t begin, int32_t end, int32_t run_begin) {
    if (rows.empty() || begin == end) return;
    plan_.visits.push_back({rows.begin, rows.end, begin, end, run_begin, static_cast<int32_t>(plan_.runs.size())});
  }

  /// One visit of all rows, or one of each.
  void add_shared_visit(RowRange rows, int32_t begin, int32_t end, int32_t run_begin) {
    if (shape_.crossover.pays(rows.end - rows.begin, end - begin)) return add_visit(rows, begin, end, run_begin);
    for (int32_t row = rows.begin; row < rows.end; ++row) add_visit({row, row + 1}, begin, end, run_begin);
  }

  void visit_node(int32_t v, const NodeRows& rows) {
    const int32_t begin = cut_at(node(v).begin), cut = cut_at(rows.end);
    const int32_t run_begin = add_path(v);
    add_shared_visit(rows.below, begin, cut, run_begin);
    // What is left of its last block is another one for each child: its own rows take it alone.
    add_visit(rows.own, cut, rows.end, run_begin);
  }

  void visit_tail(const Work& w) {
    const int32_t first = schedule_.begin_of(w.sequence), run_begin = add_path(node_of(w));
    add_run(first, w.end - first, add_table(schedule_.tail_table(w)));
    add_visit(rows_of(static_cast<size_t>(&w - work_.data())), cut_at(first), w.end, run_begin);
  }

  const Schedule& schedule_;
  std::span<const Work> work_;
  const PlanShape& shape_;
  StepPlan& plan_;
  std::map<int32_t, NodeRows> nodes_;  // that rows of the step are in or below
};

}  // namespace

StepPlan plan_step(const Schedule& schedule, std::span<const Work> work,
                   std::span<const std::span<const int32_t>> prompts, std::span<const std::vector<int32_t>> tails,
                   const PlanShape& shape) {
  StepPlan plan;
  for (const Work& w : work) {
    plan.first_rows.push_back(static_cast<int32_t>(plan.ids.size()));
    const bool in_node = w.node >= 0;
    const PrefixTree::Node* node = in_node ? &schedule.tree().nodes[static_cast<size_t>(w.node)] : nullptr;
    const auto table = in_node ? schedule.node_table(w.node) : schedule.tail_table(w);
    const int32_t first = in_node ? node->begin : schedule.begin_of(w.sequence);
    for (int32_t position = w.begin; position < w.end; ++position) {
      const auto i = static_cast<size_t>(position - first);
      plan.ids.push_back(in_node ? prompts[static_cast<size_t>(node->request)][static_cast<size_t>(position)]
                                 : tails[static_cast<size_t>(schedule.tail_of(w))][i]);
      plan.positions.push_back(position);
      plan.pages.push_back(table[i / static_cast<size_t>(shape.page_tokens)]);
      plan.entries.push_back(static_cast<int32_t>(i % static_cast<size_t>(shape.page_tokens)));
    }
  }
  plan.first_rows.push_back(static_cast<int32_t>(plan.ids.size()));
  Planner(schedule, work, shape, plan).run();
  plan.tiles =
      plan_tiles(plan.visits, std::ssize(plan.ids), shape.heads / shape.kv_heads, shape.kv_heads, shape.threads);
  return plan;
}

}  // namespace tessera

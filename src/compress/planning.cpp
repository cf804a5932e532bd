#include "compress/planning.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "compress/partition.h"
#include "core/decimal.h"
#include "core/error.h"

namespace tessera {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

int64_t ceil_of(int64_t a, int64_t b) { return (a + b - 1) / b; }

class Planner {
 public:
  Planner(FoldPlan removed, const GroupingOptions& options, const ModelShapes& shapes, const PairDelta& delta,
          const KeyPlaces& where)
      : plan_(std::move(removed)), options_(options), shapes_(shapes), delta_(delta), where_(where) {
    retained_ = retained_blocks(plan_.base.layers, plan_.removed);
    const auto count = static_cast<int64_t>(retained_.size());
    head_ = std::min(options.keep_head, count);
    middle_ = std::max<int64_t>(0, count - head_ - options.keep_tail);
    least_ = ceil_of(middle_, options.group);
  }

  Grouping plan() {
    const std::vector<BlockRun> runs = options_.method == PlanningMethod::fixed ? fixed_runs() : cheapest_runs();
    Grouping grouping{.plan = plan_with(runs), .deltas = std::move(measured_), .cost = 0};
    for (const BlockRun& run : runs) grouping.cost += run.cost.cost;
    return grouping;
  }

 private:
  /// The block at a position among the middle ones.
  int64_t block(int64_t position) const { return retained_[static_cast<size_t>(head_ + position)]; }

  /// Why two blocks cannot share, in words; empty when they can.
  std::string obstacle(int64_t a, int64_t b) const {
    if (std::string found = difference(shapes_, a, b); !found.empty()) return found;
    const auto lost = [&](int64_t block, BlockHalf part) {
      return std::binary_search(plan_.removed_halves.begin(), plan_.removed_halves.end(), RemovedHalf{block, part});
    };
    for (const BlockHalf part : {BlockHalf::attention, BlockHalf::mlp})
      if (lost(a, part) != lost(b, part)) return fmt::format("what was removed of them (the {} of one)", name_of(part));
    return a == options_.trained || b == options_.trained ? "that one was trained in place of a run" : "";
  }

  bool can_share(int64_t begin, int64_t end) const {
    for (int64_t i = begin + 1; i < end; ++i)
      if (!obstacle(block(i - 1), block(i)).empty()) return false;
    return true;
  }

  double delta_between(int64_t child, int64_t parent) {
    const auto found = known_.find({child, parent});
    if (found != known_.end()) return found->second;
    const double delta = delta_(child, parent);
    if (!std::isfinite(delta) || delta < 0)
      throw UserError(where_.section(),
                      fmt::format("fold: the weights of blocks {} and {}, or their inputs on the calibration rows, are "
                                  "not finite: they differ by {}",
                                  child, parent, delta),
                      "a model with such numbers cannot be folded: look at its files");
    measured_.push_back({child, parent, delta});
    return known_[{child, parent}] = delta;
  }

  RunCost cost_of(int64_t begin, int64_t end) {
    RunCost best{kInfinite, begin};
    if (!can_share(begin, end)) return best;
    const int64_t last_parent = options_.parent == ParentChoice::first ? begin + 1 : end;
    for (int64_t parent = begin; parent < last_parent; ++parent) {
      double cost = 0;
      for (int64_t child = begin; child < end; ++child)
        if (child != parent) cost += delta_between(block(child), block(parent));
      if (cost < best.cost) best = {cost, parent};
    }
    return best;
  }

  /// Where the fixed run that begins there ends: a trained block is a run by itself.
  int64_t fixed_end(int64_t begin) const {
    int64_t end = begin + 1;
    while (end < middle_ && end < begin + options_.group && block(begin) != options_.trained &&
           block(end) != options_.trained)
      ++end;
    return end;
  }

  std::vector<BlockRun> fixed_runs() {
    std::vector<BlockRun> runs;
    for (int64_t begin = 0, end = 0; begin < middle_; begin = end) {
      end = fixed_end(begin);
      require_sharing(begin, end);
      runs.push_back({begin, end, end == begin + 1 ? RunCost{0, begin} : cost_of(begin, end)});
    }
    if (const auto made = static_cast<int64_t>(runs.size()); options_.groups && *options_.groups != made)
      throw UserError(where_.of("groups"),
                      fmt::format("fold: fixed planning makes {} groups of {} blocks in runs of {}, not {}", made,
                                  middle_, options_.group, *options_.groups),
                      "set fold.planning = \"cost\", or leave fold.groups out");
    if (options_.target) require_target(stored(runs));
    return runs;
  }

  std::vector<BlockRun> cheapest_runs() {
    const Partitions partitions(middle_, options_.group,
                                [&](int64_t begin, int64_t end) { return cost_of(begin, end); });
    if (options_.target && !options_.groups) return runs_within_target(partitions);
    if (!options_.groups) return fewest_runs(partitions);
    const int64_t groups = *options_.groups;
    if (groups > middle_ || groups < least_)
      throw UserError(where_.of({"groups", "group"}),
                      fmt::format("fold: {} blocks in runs of at most {} are {} to {} groups, not {}", middle_,
                                  options_.group, least_, middle_, groups),
                      "change fold.groups or fold.group");
    auto runs = partitions.best(groups);
    if (!runs) refuse_groups(partitions, groups);
    if (options_.target) require_target(stored(*runs));
    return std::move(*runs);
  }

  /// Into as few groups as blocks that cannot share allow.
  std::vector<BlockRun> fewest_runs(const Partitions& partitions) const {
    for (int64_t groups = least_;; ++groups)
      if (auto runs = partitions.best(groups)) return std::move(*runs);
  }

  /// Of the most groups that the target allows.
  std::vector<BlockRun> runs_within_target(const Partitions& partitions) {
    int64_t least = std::numeric_limits<int64_t>::max();
    for (int64_t groups = middle_; groups >= least_; --groups) {
      auto runs = partitions.best(groups);
      if (!runs) continue;
      const int64_t count = stored(*runs);
      if (count <= allowed()) return std::move(*runs);
      least = std::min(least, count);
    }
    require_target(least);
    fail_check(__FILE__, __LINE__, "runs_within_target", "a target was met by no groups");
  }

  int64_t allowed() const { return share_of(*options_.target, model_parameters(shapes_), Rounding::down); }

  /// @param least  the fewest stored parameters that the options allow
  void require_target(int64_t least) const {
    if (least <= allowed()) return;
    // Rounded up to what can be asked for.
    const int64_t thousandths = ceil_of(least * 1000, model_parameters(shapes_));
    throw UserError(
        where_.of({"target", "remove", "group"}),
        fmt::format("fold: a target of {} cannot be met: {} is the least with fold.remove = {}, "
                    "fold.group = {}",
                    *options_.target, static_cast<double>(thousandths) / 1000, options_.remove, options_.group),
        "raise fold.target, fold.remove or fold.group");
  }

  void require_sharing(int64_t begin, int64_t end) const {
    for (int64_t i = begin + 1; i < end; ++i)
      if (const std::string why = obstacle(block(i - 1), block(i)); !why.empty())
        throw UserError(where_.of({"group", "planning"}), cannot_share(i, why),
                        "set fold.planning = \"cost\", which cuts between them");
  }

  std::string cannot_share(int64_t i, const std::string& why) const {
    return fmt::format("fold: blocks {} and {} differ in {} and cannot share", block(i - 1), block(i), why);
  }

  /// So few groups need blocks to share that cannot.
  [[noreturn]] void refuse_groups(const Partitions& partitions, int64_t groups) const {
    int64_t least = groups;
    while (!partitions.best(least)) ++least;
    std::string what = fmt::format("fold: {} blocks do not go into {} groups", middle_, groups);
    for (int64_t i = 1; i < middle_; ++i)
      if (const std::string why = obstacle(block(i - 1), block(i)); !why.empty()) {
        what = cannot_share(i, why);
        break;
      }
    throw UserError(where_.of({"groups", "group"}), what, fmt::format("fold.groups = {} is the least", least));
  }

  int64_t stored(const std::vector<BlockRun>& runs) const { return stored_parameters(plan_with(runs), shapes_); }

  FoldPlan plan_with(const std::vector<BlockRun>& runs) const {
    FoldPlan plan = plan_;
    plan.groups.clear();
    const auto add_single = [&](int64_t single) {
      const bool is_trained = single == options_.trained;
      plan.groups.push_back({{single}, single, is_trained ? GroupValues::trained : GroupValues::own});
    };
    for (int64_t i = 0; i < head_; ++i) add_single(retained_[static_cast<size_t>(i)]);
    for (const BlockRun& run : runs) {
      if (run.end == run.begin + 1)
        add_single(block(run.begin));
      else
        plan.groups.push_back(group_of(run));
    }
    for (size_t i = static_cast<size_t>(head_ + middle_); i < retained_.size(); ++i) add_single(retained_[i]);
    return plan;
  }

  FoldGroup group_of(const BlockRun& run) const {
    FoldGroup group;
    for (int64_t i = run.begin; i < run.end; ++i) group.blocks.push_back(block(i));
    if (options_.parent == ParentChoice::mean)
      group.values = GroupValues::mean;
    else if (options_.parent == ParentChoice::wmean)
      group.values = GroupValues::wmean;
    else
      group.parent = block(run.cost.parent);
    return group;
  }

  FoldPlan plan_;
  const GroupingOptions& options_;
  const ModelShapes& shapes_;
  const PairDelta& delta_;
  const KeyPlaces& where_;
  std::vector<int64_t> retained_;
  int64_t head_ = 0, middle_ = 0, least_ = 0;  // single blocks in front; blocks that may share; the fewest groups
  std::map<std::pair<int64_t, int64_t>, double> known_;
  std::vector<MeasuredDelta> measured_;
};

}  // namespace

Grouping plan_groups(FoldPlan removed, const GroupingOptions& options, const ModelShapes& shapes,
                     const PairDelta& delta, const KeyPlaces& where) {
  TS_CHECK(options.group >= 1 && options.keep_head >= 0 && options.keep_tail >= 0, "groups of {}, {} and {} kept",
           options.group, options.keep_head, options.keep_tail);
  TS_CHECK(shapes.layers() == removed.base.layers, "{} blocks, a plan of {}", shapes.layers(), removed.base.layers);
  return Planner(std::move(removed), options, shapes, delta, where).plan();
}

}  // namespace tessera

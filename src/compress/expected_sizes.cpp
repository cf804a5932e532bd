#include "compress/expected_sizes.h"

#include <algorithm>
#include <numeric>

#include "compress/cured_model.h"
#include "compress/gate_units.h"
#include "compress/grouping_keys.h"
#include "compress/model_sizes.h"
#include "compress/ranking.h"
#include "core/decimal.h"
#include "core/error.h"
#include "model/fold/plan_file.h"
#include "train/chart.h"

namespace tessera {
namespace {

/// The plan where the blocks from the first on are removed, behind one that is trained in place of them and itself.
FoldPlan plan_without(int64_t first, int64_t count, const FoldBase& base, const StageSizes& sizes,
                      const ModelShapes& shapes, const KeyPlaces& where) {
  FoldPlan plan;
  plan.base = base;
  plan.child = asked_child(sizes.fold);
  GroupingOptions options = grouping_options(sizes.fold);
  if (sizes.fold.replace != "none" && count > 0) options.trained = first++;
  for (int64_t block = first; block < first + count; ++block) plan.removed.push_back(block);
  return plan_groups(
             std::move(plan), options, shapes, [](int64_t, int64_t) { return 0.0; }, where)
      .plan;
}

/// The user's plan, or one that removes and shares as many blocks as the recipe's will: the first that is possible.
FoldPlan expected_plan(const StageSizes& sizes, const ModelShapes& shapes, const KeyPlaces& where) {
  const FoldConfig& fold = sizes.fold;
  const FoldBase base{.fingerprint = {}, .layers = shapes.layers(), .model_type = sizes.model.base_config().family};
  if (!fold.plan.empty()) return read_fold_plan(fold.plan, base);
  const int64_t count = blocks_to_remove(fold.remove, base.layers, protected_blocks(fold), where),
                taken = count + (fold.replace != "none" && count > 0 ? 1 : 0),
                last = count == 0 ? fold.protect_head : base.layers - fold.protect_tail - taken;
  std::optional<UserError> fault;
  for (int64_t first = fold.protect_head; first <= last; ++first) {
    try {
      return plan_without(first, count, base, sizes, shapes, where);
    } catch (const UserError& error) {
      if (!fault) fault = error;
    }
  }
  TS_CHECK(fault, "no {} of {} blocks to remove", taken, base.layers);
  throw UserError(*fault);
}

/// Numbers of the blocks together, and of the halves that are removed at least and at most: they come nearest to the
/// share, at most half of the last one off.
struct HalvesSizes {
  int64_t blocks = 0, removed_least = 0, removed_most = 0;

  HalvesSizes(const ModelShapes& shapes, double remove) {
    const std::vector<int64_t> halves = half_parameters(shapes);
    blocks = std::accumulate(halves.begin(), halves.end(), int64_t{0});
    const int64_t wanted = ceil_of_share(remove, blocks), off = *std::ranges::max_element(halves) / 2;
    removed_least = std::max<int64_t>(0, wanted - off);
    removed_most = wanted + off;
  }
};

/// @throws UserError when a target is below what is stored where all that is left is in groups as large as they may be
void require_target_of_halves(const FoldConfig& fold, const ModelShapes& shapes, const KeyPlaces& where) {
  if (!fold.target) return;
  const HalvesSizes sizes(shapes, fold.remove);
  const int64_t original = model_parameters(shapes),
                least = shapes.outside + (sizes.blocks - sizes.removed_most) / fold.group;
  if (least <= share_of(*fold.target, original, Rounding::down)) return;
  throw UserError(
      where.of({"target", "remove", "group"}),
      fmt::format("fold: a target of {} cannot be met: more than {:.3f} is stored with fold.remove = {}, "
                  "fold.group = {}",
                  *fold.target, static_cast<double>(least) / static_cast<double>(original), fold.remove, fold.group),
      "raise fold.target, fold.remove or fold.group");
}

bool are_equal(const ModelShapes& shapes) {
  for (int64_t block = 1; block < shapes.layers(); ++block)
    if (!difference(shapes, 0, block).empty()) return false;
  return true;
}

/// @param about  "about " where it is not exact
std::string line_of(const char* name, const ModelSizes& sizes, const char* about) {
  return fmt::format(
      "{0:<10}{1}{2} layers of {3} blocks, {1}{4} parameters stored, {1}{5} computed, {6:.1f} MB in memory, {7:.1f} MB "
      "on disk",
      name, about, sizes.layers_computed, sizes.blocks_stored,
      short_number(static_cast<double>(sizes.parameters_stored)),
      short_number(static_cast<double>(sizes.parameters_computed)), static_cast<double>(sizes.bytes_resident) * 1e-6,
      static_cast<double>(sizes.bytes_disk) * 1e-6);
}

}  // namespace

std::vector<std::string> size_lines(const StageSizes& sizes, const KeyPlaces& where) {
  const ModelShapes shapes = shapes_of(sizes.model.decoder().specs());
  const FoldPlan plan = expected_plan(sizes, shapes, where);
  const auto folded = counted_model(sizes, plan);
  const bool removes_halves = sizes.fold.removes_halves();
  const char* about = removes_halves ? "about " : "";
  std::vector<std::string> lines = {line_of("original", sizes_of(sizes.model, shapes, nullptr), ""),
                                    line_of("folded", sizes_of(*folded, shapes, &plan), about)};
  if (is_asked(sizes.fold, "cure")) {
    const auto student = counted_student(sizes, plan);
    lines.push_back(line_of("cured", sizes_of(*student, shapes, &plan), about) +
                    fmt::format(", {} trained", short_number(static_cast<double>(student->pool().trainable_count()))));
  }
  if (!removes_halves) return lines;
  const HalvesSizes halves(shapes, sizes.fold.remove);
  lines.push_back(fmt::format(
      "note: which halves go is known once their gates are trained: the fewer neighbours lose the same half, "
      "the less is shared, and up to {} parameters are stored in the folded model",
      short_number(static_cast<double>(shapes.outside + halves.blocks - halves.removed_least))));
  return lines;
}

void require_possible_plan(const StageSizes& sizes, const KeyPlaces& where) {
  const ModelShapes shapes = shapes_of(sizes.model.decoder().specs());
  if (!is_asked(sizes.fold, "group")) return;
  if (sizes.fold.removes_halves()) return require_target_of_halves(sizes.fold, shapes, where);
  if (are_equal(shapes)) expected_plan(sizes, shapes, where);
}

}  // namespace tessera

#include "compress/expected_sizes.h"

#include "compress/cured_model.h"
#include "compress/gate_units.h"
#include "compress/grouping_keys.h"
#include "compress/model_sizes.h"
#include "compress/ranking.h"
#include "core/error.h"
#include "model/fold/plan_file.h"
#include "train/chart.h"

namespace tessera {
namespace {

/// The user's plan, or one that removes and shares as many blocks as the recipe's will.
FoldPlan expected_plan(const StageSizes& sizes, const ModelShapes& shapes, const KeyPlaces& where) {
  const FoldConfig& fold = sizes.fold;
  const FoldBase base{.fingerprint = {}, .layers = shapes.layers(), .model_type = sizes.model.base_config().family};
  if (!fold.plan.empty()) return read_fold_plan(fold.plan, base);
  FoldPlan plan;
  plan.base = base;
  plan.child = asked_child(fold);
  const int64_t count = blocks_to_remove(fold.remove, base.layers, protected_blocks(fold), where);
  GroupingOptions options = grouping_options(fold);
  int64_t first = fold.protect_head;
  if (fold.replace != "none" && count > 0) options.trained = first++;
  for (int64_t block = first; block < first + count; ++block) plan.removed.push_back(block);
  return plan_groups(
             std::move(plan), options, shapes, [](int64_t, int64_t) { return 0.0; }, where)
      .plan;
}

std::string line_of(const char* name, const ModelSizes& sizes) {
  return fmt::format(
      "{:<10}{} layers of {} blocks, {} parameters stored, {} computed, {:.1f} MB in memory, {:.1f} MB "
      "on disk",
      name, sizes.layers_computed, sizes.blocks_stored, short_number(static_cast<double>(sizes.parameters_stored)),
      short_number(static_cast<double>(sizes.parameters_computed)), static_cast<double>(sizes.bytes_resident) * 1e-6,
      static_cast<double>(sizes.bytes_disk) * 1e-6);
}

}  // namespace

std::vector<std::string> size_lines(const StageSizes& sizes, const KeyPlaces& where) {
  const ModelShapes shapes = shapes_of(sizes.model.decoder().specs());
  const FoldPlan plan = expected_plan(sizes, shapes, where);
  const auto folded = counted_model(sizes, plan);
  std::vector<std::string> lines = {line_of("original", sizes_of(sizes.model, shapes, nullptr)),
                                    line_of("folded", sizes_of(*folded, shapes, &plan))};
  if (!is_asked(sizes.fold, "cure")) return lines;
  const auto student = counted_student(sizes, plan);
  lines.push_back(line_of("cured", sizes_of(*student, shapes, &plan)) +
                  fmt::format(", {} trained", short_number(static_cast<double>(student->pool().trainable_count()))));
  return lines;
}

}  // namespace tessera

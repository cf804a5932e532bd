#include "compress/grouping_keys.h"

#include <algorithm>

#include "core/error.h"

namespace tessera {
namespace {

template <class Choice, size_t n> Choice choice_of(const std::string& name, const char* const (&names)[n]) {
  const auto found = std::find(std::begin(names), std::end(names), name);
  TS_CHECK(found != std::end(names), "\"{}\" passed the recipe's check", name);
  return static_cast<Choice>(found - std::begin(names));
}

}  // namespace

FoldChild asked_child(const FoldConfig& fold) {
  constexpr const char* kLevels[] = {"tie", "norm", "scale", "lora", "mos"};
  const auto level = choice_of<ChildLevel>(fold.child, kLevels);
  return {level, level >= ChildLevel::lora ? fold.child_rank : 0};
}

GroupingOptions grouping_options(const FoldConfig& fold) {
  constexpr const char* kMethods[] = {"cost", "fixed"};
  constexpr const char* kParents[] = {"medoid", "first", "mean", "wmean"};
  return {.method = choice_of<PlanningMethod>(fold.planning, kMethods),
          .parent = choice_of<ParentChoice>(fold.parent, kParents),
          .group = fold.group,
          .keep_head = fold.keep_head,
          .keep_tail = fold.keep_tail,
          .groups = fold.groups,
          .target = fold.target,
          .remove = fold.remove};
}

}  // namespace tessera

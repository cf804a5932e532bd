#pragma once
// The fold plan as a file, fold_plan.json: written by job=compress, or by hand (docs/foldgpt.md has the format).

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "model/fold/plan.h"

namespace tessera {

/// @param base   the model that the plan is for; none: whatever the plan says
/// @throws UserError "fold: plan.json:12: block 7 stands in two groups": the line of the first fault. Keys that are
/// unknown, missing or twice are faults like those of plan_check.h
FoldPlan read_fold_plan(const std::filesystem::path& file, const std::optional<FoldBase>& base = std::nullopt);

/// The same of a text. @param where  names it in errors
FoldPlan parse_fold_plan(std::string_view text, const std::string& where,
                         const std::optional<FoldBase>& base = std::nullopt);

/// All keys in the file's order. A group of one that keeps its own weights has its blocks alone.
Json fold_plan_json(const FoldPlan&);

/// The file's bytes: one line a key, one a group, one a key of the history. What is read and written again is the same
/// bytes. @param plan  without fault
std::string fold_plan_text(const FoldPlan& plan);
void write_fold_plan(const std::filesystem::path& file, const FoldPlan&);  // atomically

}  // namespace tessera

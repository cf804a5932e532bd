#pragma once
// Pictures of a report as SVG text: a plan, and maps of numbers. Colours are those of html_page.h.

#include <string>
#include <vector>

#include "core/json.h"
#include "model/fold/plan.h"

namespace tessera {

/// CSS of the classes that the pictures use.
std::string_view picture_style();

/// A line a block: removed, stored, or which block's weights it reads, with its block influence where there is one.
/// @param bi  [L], or empty
std::string plan_picture(const FoldPlan&, const std::vector<double>& bi);

/// Cosines of the residual streams in front of each block and behind the last, the darker the more alike.
/// @param similarity  [L+1][L+1]
std::string similarity_picture(const std::vector<std::vector<double>>& similarity);

/// Gate parameters while they are trained: a row a gate, from left to right the steps; full colour is 1.
/// @param names  of the gates
/// @param theta  [recorded steps][gates]
std::string gates_picture(const std::vector<std::string>& names, const std::vector<std::vector<double>>& theta,
                          int64_t steps);

}  // namespace tessera

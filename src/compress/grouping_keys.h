#pragma once
// The recipe's keys of grouping, as planning and plans take them.

#include "compress/fold_config.h"
#include "compress/planning.h"

namespace tessera {

GroupingOptions grouping_options(const FoldConfig&);
/// What a block of a group is to have of its own.
FoldChild asked_child(const FoldConfig&);

}  // namespace tessera

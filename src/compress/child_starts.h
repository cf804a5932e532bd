#pragma once
// What a folded model's own numbers begin with when it is made of its original: means of groups, gains and deltas of
// children (parents.h, starts.h). Everything else is the original's.

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "comm/communicator.h"
#include "compress/parents.h"
#include "model/model.h"
#include "model/sharing/fold.h"

namespace tessera {

/// First values of slots, by the names of model/sharing/fold.h.
using SlotStarts = decltype(FoldMaking::starts);

/// Writes a tensor's values, converted to the slot's type.
SlotStarts::mapped_type start_from(const std::shared_ptr<const Tensor>&);

/// Whether the starts of a plan depend on the inputs of blocks: only a weighted mean, gains and low-rank deltas do.
bool reads_moments(const FoldPlan&);

/// The ranks take groups that share in turn, and hand one another what they found: the same bits for any number of
/// ranks.
/// @param blocks       by original index
/// @param before_each  called in front of each group, on every rank; it may throw on all of them
/// @throws UserError on every rank when a weight is not finite
SlotStarts child_starts(Communicator&, const FoldPlan&, std::span<const FoldBlock> blocks,
                        const std::function<void()>& before_each);

/// Adds all that a folded model reads of an original that lies in no file, where its weights were drawn: the linears of
/// groups, norms and biases of layers, and what lies outside blocks. They are read when the folded model is made.
void add_drawn_starts(Model& original, const FoldPlan&, SlotStarts&);

}  // namespace tessera

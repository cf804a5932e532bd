#pragma once
// A saved folded model as first values over its base: teacher and student then read one mapped file.

#include "model/sharing/fold.h"

namespace tessera {

/// FoldMaking::starts with all that a saved folded model has beside its base's tensors: norms, biases, gains, deltas,
/// and groups whose values are not their parent's own. The groups that are read the base's tensors where they lie.
/// @param saved  its fold.safetensors; kept for as long as the starts are
/// @param base   the base's tensors: a group whose numbers are others than its parent's there (a gate was multiplied
///               into them, fold.absorb) has starts, too. null: there is none such
std::map<std::string, std::function<void(TensorView)>> starts_beside_base(
    const std::shared_ptr<const SafetensorsReader>& saved, const FoldPlan&, const SafetensorsReader* base = nullptr);

}  // namespace tessera

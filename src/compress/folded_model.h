#pragma once
// A folded model beside its original: frozen weights that both have lie in one mapped file.

#include "model/model.h"
#include "model/sharing/fold.h"

namespace tessera {

/// Settings of a folded model that reads the frozen weights of its original where they are mapped: its positions,
/// types and device, without memory for gradients.
Model::Settings folded_settings(Model& original, FoldMaking making, uint64_t seed);

}  // namespace tessera

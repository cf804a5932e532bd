#pragma once
// What a model takes: numbers and bytes, as reports and plans tell them.

#include "model/fold/plan_shapes.h"
#include "model/model.h"

namespace tessera {

struct ModelSizes {
  int64_t layers_computed = 0;      // R: those that a token passes
  int64_t blocks_stored = 0;        // groups of the plan; of the original its layers
  int64_t parameters_stored = 0;    // numbers of all slots of the pool
  int64_t parameters_computed = 0;  // that a token's pass reads: as stored, shared ones as often as they are read
  int64_t bytes_disk = 0;           // of the file or files of the weights; of a model that lies in none, of one of its
                                    // slots in their types
  int64_t bytes_resident = 0;       // distinct bytes that a forward pass reads: each slot once, in the type that it
                                    // has in memory, and deltas that are put together from a pool
  int64_t kv_bytes_per_token = 0;   // key and value of each layer computed
};

/// @param model     held, or laid out for a plan
/// @param original  of the model that was folded
/// @param plan      by which; null: the model is the original
ModelSizes sizes_of(Model& model, const ModelShapes& original, const FoldPlan* plan);

}  // namespace tessera

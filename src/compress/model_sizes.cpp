#include "compress/model_sizes.h"

#include "io/safetensors_size.h"

namespace tessera {
namespace {

using Slots = std::vector<std::pair<std::string, ConstView>>;

Slots slots_of(ParameterPool& pool) {
  Slots slots;
  for (SlotId id = 0; id < pool.count(); ++id) slots.emplace_back(pool.name(id), pool.values(id));
  return slots;
}

/// A folded model's own file holds all its slots, wherever they lie now.
int64_t disk_bytes(Model& model, const Slots& slots, const FoldPlan* plan) {
  if (plan || !model.source()) return safetensors_bytes(slots);
  int64_t bytes = 0;
  for (const auto& file : model.source()->files()) bytes += static_cast<int64_t>(file->bytes().size());
  return bytes;
}

}  // namespace

ModelSizes sizes_of(Model& model, const ModelShapes& original, const FoldPlan* plan) {
  const Slots slots = slots_of(model.pool());
  const DecoderModel& decoder = model.decoder();
  ModelSizes sizes{.layers_computed = decoder.num_layers(),
                   .blocks_stored = plan ? static_cast<int64_t>(plan->groups.size()) : decoder.num_layers()};
  for (const auto& [name, values] : slots) {
    sizes.parameters_stored += values.shape.count();
    sizes.bytes_resident += values.bytes();
  }
  if (model.bound_adapter()) sizes.bytes_resident += model.bound_adapter()->assembled_bytes();
  // What the plan does not know of, a cure's deltas, is read once by its layer.
  const int64_t known = plan ? stored_parameters(*plan, original) : model_parameters(original);
  sizes.parameters_computed = (plan ? computed_parameters(*plan, original) : known) + sizes.parameters_stored - known;
  sizes.bytes_disk = disk_bytes(model, slots, plan);
  sizes.kv_bytes_per_token = 2 * sizes.layers_computed * model.config().key_width() * size_of(decoder.activations());
  return sizes;
}

}  // namespace tessera

#include <map>

#include "model/sharing/base.h"

namespace tessera {
namespace {

ConstView checked_source(const SafetensorsReader& source, const WeightSpec& spec) {
  const ConstView view = source.at(spec.name);
  const std::string file = source.file_of(spec.name)->path().string();
  if (!is_floating(view.dtype))
    throw UserError(file, fmt::format("tensor \"{}\" is stored as {}", spec.name, name_of(view.dtype)),
                    "weights are read as f32, bf16 or f16");
  if (!(view.shape == spec.shape))
    throw UserError(
        file, fmt::format("tensor \"{}\" is {}, config.json says {}", spec.name, view.shape.text(), spec.shape.text()),
        "config.json and the weights do not belong together");
  return view;
}

}  // namespace

std::vector<ViewPtr> bind_plain(std::span<const WeightSpec> specs, ParameterPool& pool, const SafetensorsReader* source,
                                const BaseOptions& options) {
  std::map<std::string, SlotId> slots;
  std::vector<ViewPtr> views;
  for (const WeightSpec& spec : specs) {
    auto found = slots.find(spec.storage);
    if (found == slots.end()) {
      SlotOptions slot{.shape = spec.shape,
                       .trainable = options.trainable,
                       .init = spec.init,
                       .weight_decay = spec.role != Role::norm,
                       .storage = options.storage};
      if (source) {
        slot.init.source = checked_source(*source, spec);
        slot.init.file = source->file_of(spec.name);
      }
      const bool in_place = source && !options.trainable && pool.compute() == DType::f32;
      found =
          slots
              .emplace(spec.storage, in_place ? pool.adopt(spec.storage, slot.init.source, source->file_of(spec.name))
                                              : pool.reserve(spec.storage, slot))
              .first;
    }
    views.push_back(std::make_shared<SliceView>(pool, found->second, spec.shape));
  }
  return views;
}

}  // namespace tessera

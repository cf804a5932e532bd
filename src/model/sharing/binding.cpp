#include "model/sharing/binding.h"

#include <algorithm>

#include "core/error.h"
#include "model/sharing/regex_of.h"
#include "model/sharing_io.h"

namespace tessera {
namespace {

/// A tensor that is not trained stays where the file was mapped.
SlotId reserve_or_adopt(const std::string& name, SlotOptions slot, ParameterPool& pool) {
  const bool in_place = !slot.init.source.empty() && !slot.trainable && pool.dtype() == DType::f32;
  return in_place ? pool.adopt(name, slot.init.source, slot.init.file) : pool.reserve(name, std::move(slot));
}

}  // namespace

bool is_weight_type(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16; }

ConstView source_of(const SafetensorsReader& source, const WeightSpec& spec) {
  const std::string& name = spec.name_in_files();
  const ConstView view = source.at(name);
  const std::string file = source.file_of(name)->path().string();
  if (!is_weight_type(view.dtype))
    throw UserError(file, fmt::format("tensor \"{}\" is stored as {}", name, name_of(view.dtype)),
                    "weights are read from f32, bf16 and f16: write the model out in one of them");
  if (!(view.shape == spec.shape))
    throw UserError(file,
                    fmt::format("tensor \"{}\" is {}, config.json says {}", name, view.shape.text(), spec.shape.text()),
                    "config.json and the weights do not belong together");
  return view;
}

Init first_init(const WeightSpec& spec, const SafetensorsReader* source) {
  Init init = spec.init;
  if (source) {
    init.source = source_of(*source, spec);
    init.file = source->file_of(spec.name_in_files());
  }
  return init;
}

Tensor dense_values(const WeightSpec& spec, const SafetensorsReader* source, DType dtype, uint64_t seed, Rules rules) {
  Tensor values(spec.shape, dtype);
  write_first_values(first_init(spec, source), seed, spec.storage, values, rules);
  return values;
}

bool is_trained(const WeightSpec& spec, const BaseOptions& options) {
  return options.trainable &&
         std::none_of(options.freeze.begin(), options.freeze.end(), [&](const std::string& pattern) {
           return with_place("train.freeze",
                             [&] { return regex_of(pattern, "train.freeze").is_found_in(spec.storage); });
         });
}

void require_sensible_freeze(std::span<const WeightSpec> specs, const BaseOptions& options) {
  if (!options.trainable) return;
  for (const std::string& entry : options.freeze) {
    const Regex pattern = regex_of(entry, "train.freeze");
    if (std::none_of(specs.begin(), specs.end(), [&](const WeightSpec& spec) {
          return with_place("train.freeze", [&] { return pattern.is_found_in(spec.storage); });
        }))
      throw UserError(
          options.where_freeze, fmt::format("train.freeze \"{}\" is found in no tensor's name", entry),
          fmt::format("names are like \"{}\" and \"{}\"", specs.front().name, specs[specs.size() / 2].name));
  }
  if (std::none_of(specs.begin(), specs.end(), [&](const WeightSpec& spec) { return is_trained(spec, options); }))
    throw UserError(options.where_freeze, "train.freeze leaves nothing to train", "name fewer tensors");
}

SlotId bind_slot(const std::string& name, SlotOptions slot, ParameterPool& pool, const BaseOptions& options,
                 const std::function<std::string(int64_t)>& readers) {
  if (!options.saved) return pool.reserve(name, std::move(slot));
  slot.init = {Init::Kind::zeros, 0, options.saved->at(name, slot.shape, readers), options.saved->file_of(name)};
  if (const ConstView& saved = slot.init.source; saved.dtype != DType::f32)  // it is computed with where it lies
    throw UserError(slot.init.file->path().string(),
                    fmt::format("tensor \"{}\" is stored as {}, expected f32", name, name_of(saved.dtype)),
                    "take the file that the run wrote: a pool is not converted");
  return reserve_or_adopt(name, std::move(slot), pool);
}

SlotId bind_tensor(const std::string& name, const WeightSpec& spec, bool trained, ParameterPool& pool,
                   const BaseOptions& options) {
  SlotOptions slot{.shape = spec.shape,
                   .trainable = trained,
                   .init = first_init(spec, options.saved ? nullptr : options.source),
                   .weight_decay = spec.role != Role::norm && spec.role != Role::bias,
                   .storage = options.storage};
  if (options.saved) {
    slot.init.source =
        options.saved->at(name, spec.shape, [&](int64_t i) { return fmt::format("element {} of \"{}\"", i, name); });
    slot.init.file = options.saved->file_of(name);
  }
  return reserve_or_adopt(name, std::move(slot), pool);
}

SlotId bind_own_slot(const WeightSpec& spec, ParameterPool& pool, const BaseOptions& options) {
  return bind_tensor(spec.storage, spec, is_trained(spec, options), pool, options);
}

std::vector<Weight> bind_others(std::span<const WeightSpec> specs, std::map<std::string, ViewPtr> by_storage,
                                ParameterPool& pool, const BaseOptions& options) {
  std::vector<Weight> weights;
  for (const WeightSpec& spec : specs) {
    ViewPtr& view = by_storage[spec.storage];
    if (!view) view = std::make_shared<SliceView>(pool, bind_own_slot(spec, pool, options), spec.shape);
    weights.push_back({view});
  }
  return weights;
}

}  // namespace tessera

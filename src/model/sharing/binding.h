#pragma once
// What ways to share weights have in common when they bind: a tensor's first values, whether it is trained, a slot for
// it.

#include <functional>

#include "model/sharing/base.h"

namespace tessera {

/// Whether weights are read from a file's tensors of this type: f32, bf16, f16.
bool is_weight_type(DType);

/// A dense model's tensor for a spec. @throws UserError when it is missing, has another shape or no floating dtype
ConstView source_of(const SafetensorsReader&, const WeightSpec&);

/// How a dense model's tensor gets its first values: from the source, or drawn as the spec says when that is null.
Init first_init(const WeightSpec&, const SafetensorsReader* source);
/// Those values, as if nothing were shared.
Tensor dense_values(const WeightSpec&, const SafetensorsReader* source, DType, uint64_t seed, Rules);

/// Whether a tensor is trained: BaseOptions::trainable, unless freeze names it. @throws UserError for no regular
/// expression
bool is_trained(const WeightSpec&, const BaseOptions&);
/// @throws UserError when an entry of freeze is found in no tensor's name, or nothing is left to train
void require_sensible_freeze(std::span<const WeightSpec>, const BaseOptions&);

/// The slot of that name, which holds a tensor as a spec describes it.
/// @param trained  else it is frozen, and stays in the file that it is read from
SlotId bind_tensor(const std::string& name, const WeightSpec&, bool trained, ParameterPool&, const BaseOptions&);

/// A slot of its own for a spec: what the plain base does for all, and others for what they do not share.
SlotId bind_own_slot(const WeightSpec&, ParameterPool&, const BaseOptions&);

/// One weight a spec: the view of its storage, or else a slot of its own.
std::vector<Weight> bind_others(std::span<const WeightSpec>, std::map<std::string, ViewPtr> by_storage, ParameterPool&,
                                const BaseOptions&);

/// A slot that is no tensor of the model (a pool): from BaseOptions::saved when that is given, else as the slot's
/// options say.
/// @param readers  tells who reads an element, for the error when a saved one is not finite
SlotId bind_slot(const std::string& name, SlotOptions, ParameterPool&, const BaseOptions&,
                 const std::function<std::string(int64_t)>& readers);

}  // namespace tessera

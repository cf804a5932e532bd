#pragma once
// What is checked of an adapter's folder, whoever reads it: a training that goes on, or an engine that serves several.

#include <filesystem>
#include <string>

#include "model/model.h"
#include "model/native_folder.h"

namespace tessera {

inline constexpr NativeKind kAdapterKind{"adapter", "tessera adapter", "adapter.json"};

/// A folded model has fewer layers than the one that it was made of: adapters of that one look as if they would do.
/// @throws UserError when the adapter changes another number of layers than a folded model has
void require_same_layers(const NativeFolder&, const std::filesystem::path& folder, Model&, const std::string& method,
                         const std::string& where);

/// @throws UserError when the adapter belongs to another base, as far as the model knows its own
void require_same_base(const NativeFolder&, const std::filesystem::path& folder, Model&);

/// @throws UserError when the stored tensor has another dtype or shape
void require_stored_as(const ConstView& stored, const std::string& name, DType, const Shape&, const std::string& file);

/// @throws UserError when a number is not finite
void require_finite_slot(const ConstView& stored, const std::string& name, const Adapter&, const std::string& file);

}  // namespace tessera

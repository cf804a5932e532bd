#pragma once
// The files of a dense base model: what model.path must be, and the tensors in it under the model's own names.

#include <filesystem>
#include <span>
#include <string>

#include "io/safetensors.h"
#include "model/model_config.h"

namespace tessera {

/// Says what a folder without config.json is instead: a PEFT folder, a saved adapter or pool, a run;
/// and where its base model lies.
/// @param where  place of model.path in the recipe
/// @throws UserError for such a folder; other folders and files are left to who reads them
void refuse_other_folder(const std::filesystem::path& folder, const std::string& where);

/// model.path of a run's stored recipe; empty when it cannot be told.
std::filesystem::path base_of_run(const std::filesystem::path& run);

/// The weights of a folder, under the specs' names whatever prefix they have there (tensor_names.h). A tied model may
/// store its one matrix as the head's: it is then read under the embedding's name.
/// @throws UserError for files that are missing or damaged, and for tensors that contradict config.json
///   (config_agreement.h)
SafetensorsReader open_base(const std::filesystem::path& folder, const ModelConfig&);

/// Weights that config.json ties must not differ in the file: one of them would be lost in silence.
/// @throws UserError naming both
void require_equal_ties(const SafetensorsReader&, std::span<const WeightSpec>);

}  // namespace tessera

#pragma once
// What jobs build from a recipe: tokenizer, prepared data, model. Each in one place, the same for every job.

#include <optional>

#include "cli/jobs.h"

namespace tessera {

/// [data] with the cache's default filled in: .cache beside the run's folder.
DataConfig data_config(const JobInputs&);

/// Tokenizer and data of a recipe. Rank 0 prepares first, so that the cache is written once.
struct Datasets {
  Tokenizer tokenizer;
  std::optional<PackedDataset> train, eval;
  std::vector<std::string> notices;
};
Datasets load_datasets(const JobInputs&, bool need_train);

/// Refuses ids that the model's embedding has no row for: a tokenizer of another model, or with tokens added to it.
void require_known_token(const JobInputs&, const Model&, const Tokenizer&, int32_t largest_id);
void require_known_tokens(const JobInputs&, const Model&, const Datasets&);

/// What deserves a word when rows are longer than what the model was trained on; empty otherwise.
std::string length_notice(const JobInputs&, const Model&);

Model::Settings model_settings(const JobInputs&, int64_t max_position);

/// model_settings of a job that works with what a training left: without an adapter, the model that run.dir holds, else
/// the recipe's; with shared weights, those that run.dir holds. Every rank looks into its own run.dir. Rank 0 says which.
/// @throws UserError when a training of all weights has begun in run.dir and has not ended, or left them held in another way
Model::Settings trained_model_settings(const JobInputs&, int64_t max_position);

/// @throws UserError when the base model would be exported over a model that run.dir holds, or into a training of all
/// weights that has not ended, or that left them held in another way
void refuse_base_export(const JobInputs&);

/// Loads adapter.load into the model when it is set: where a training starts from.
void start_from_saved_adapter(const JobConfig&, Model&);

/// Loads what a job other than training works with: adapter.load, else the adapter that the run's folder holds.
/// @throws UserError when the recipe has an adapter and neither is there: the base model alone would be measured in its name
void use_trained_adapter(const JobInputs&, Model&);

/// Bytes a rank needs: what it owns, what it shares with the ranks of its node, and what a step takes.
struct MemoryPlan {
  int64_t mapped, weights_and_gradients, optimizer, activations, assembled;
  int64_t owned() const { return weights_and_gradients + optimizer + activations + assembled; }
};
MemoryPlan plan_memory(const JobInputs&, Model&);

/// Numbers of the dense model: one a weight, adapters apart.
int64_t dense_parameters(Model&);

/// Bytes of weights, gradients and the optimizer's state: as they are held, and as they would be with a number for each weight.
struct Footprint {
  int64_t held, dense;
};
Footprint footprint(Model&, const MemoryPlan&);

/// Refuses, on every rank, a job whose ranks disagree on data or parameters.
void require_agreement(const JobInputs&, Model&, const Datasets&);

/// Writes what [export] asks for into a run's folder; full training always exports the model.
/// @param say  told each folder that was written; may be empty
void export_results(const JobInputs&, const Context&, Model&, const std::filesystem::path& folder,
                    const std::function<void(const std::string&)>& say);

/// Whether a training ends with a dense model: full training always, unless its weights are shared and can be loaded as such.
bool writes_model(const JobInputs&, Model&);
/// What a dense export is called where it is told: of a shared model with how much larger it is.
std::string dense_notice(Model&);

/// Payload that a rank hands to collectives in a step: its gradients, or its vote (19 bytes, the probes', and the loss).
int64_t wire_bytes_per_step(const JobInputs&, Model&);

std::filesystem::path run_folder_path(const JobInputs&);
std::string megabytes(int64_t bytes);

}  // namespace tessera

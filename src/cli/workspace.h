#pragma once
// What jobs build from a recipe: tokenizer, prepared data, model. Each in one place, the same for every job.

#include <functional>
#include <optional>

#include "cli/jobs.h"
#include "data/tokenizer.h"

namespace tessera {

/// [data] with the cache's default filled in: .cache beside the run's folder.
DataConfig data_config(const JobInputs&);

/// Tokenizer and data of a recipe. Rank 0 prepares first, so that the cache is written once.
struct Datasets {
  Tokenizer tokenizer;
  std::optional<PackedDataset> train, eval;
  std::vector<std::string> notices;
};
Datasets load_datasets(const JobInputs&, bool need_train, Rules = kNewestRules);

/// What is told of rows that packing left out; empty when it left out none.
std::string left_out_notice(const PackedDataset&, const std::string& source);

/// Refuses ids that the model's embedding has no row for: a tokenizer of another model, or with tokens added to it.
void require_known_token(const JobInputs&, const Model&, const Tokenizer&, int32_t largest_id);
void require_known_tokens(const JobInputs&, const Model&, const Datasets&);

/// A warning when more than one in a hundred of the tokens that are `whose` ("data's") is the unknown one; empty otherwise.
std::string unknown_words(std::span<const int32_t> tokens, const Tokenizer&, const std::string& whose);

/// What deserves a word when `what` ("rows") has more tokens than the model was trained on; empty otherwise.
std::string length_notice(const Model&, const std::string& what, int64_t tokens);

/// A notice of a job that has no log, on stderr: once, unless it is to be quiet or there is nothing to say.
void tell(const JobInputs&, const std::string& notice);
/// tell, for those who have something to say while they work. The inputs must outlive it.
std::function<void(const std::string&)> teller(const JobInputs&);

Model::Settings model_settings(const JobInputs&, int64_t max_position);

/// Refuses, on every rank, a job whose ranks disagree on data or parameters.
void require_agreement(const JobInputs&, Model&, const Datasets&);

std::filesystem::path run_folder_path(const JobInputs&);

}  // namespace tessera

#pragma once
// Tokenizer and prepared data of a recipe, the same for every job that reads them.

#include <optional>
#include <span>

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

/// A warning when more than one in a hundred of the tokens that are `whose` ("data's") is the unknown one;
/// empty otherwise.
std::string unknown_words(std::span<const int32_t> tokens, const Tokenizer&, const std::string& whose,
                          const ModelOptions&);

}  // namespace tessera

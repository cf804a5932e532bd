#include "cli/datasets.h"

#include <algorithm>

#include "cli/run_path.h"
#include "comm/stop_together.h"
#include "core/error.h"
#include "data/encoding.h"
#include "data/token_data.h"
#include "data/token_file.h"

namespace tessera {
namespace {

constexpr uint64_t kEvaluationOrder = 0;  // of held-out documents, whatever train.seed is

const char* file_of(const JobInputs& in, Split split) {
  return split == Split::train         ? "data.train"
         : in.config.data.eval.empty() ? "the held-out part of data.train"
                                       : "data.eval";
}

}  // namespace

DataConfig data_config(const JobInputs& in) {
  DataConfig data = in.config.data;
  if (data.cache.empty()) data.cache = std::filesystem::absolute(run_folder_path(in)).parent_path() / ".cache";
  return data;
}

Datasets load_datasets(const JobInputs& in, bool need_train, Rules rules) {
  Datasets sets{
      .tokenizer = Tokenizer::load(in.config.model.tokenizer_folder()), .train = {}, .eval = {}, .notices = {}};
  sets.notices = reading_notices(sets.tokenizer, in.config.data);
  const TrainConfig& train = in.config.trainer.train;
  const auto load = [&](Split split) {
    std::string notice;
    TokenData data = load_split(data_config(in), sets.tokenizer, split, &notice, rules, in.threads);
    if (!notice.empty()) sets.notices.push_back(notice);
    if (split == Split::train && objective_of(train.objective).rows == ExampleRows::answers)
      data = answers_only(std::move(data));
    if (const std::string warning = unknown_words(data.tokens, sets.tokenizer, "data's", in.config.model);
        !warning.empty())
      sets.notices.push_back(warning + " (--show-batch shows them)");
    const bool is_shuffled_by_seed = split == Split::train || rules == Rules::first;
    PackedDataset set(std::move(data), train.sequence_length,
                      is_shuffled_by_seed ? static_cast<uint64_t>(train.seed) : kEvaluationOrder, rules);
    if (const std::string note = left_out_notice(set, file_of(in, split)); !note.empty()) sets.notices.push_back(note);
    return set;
  };
  const auto load_all = [&] {
    if (need_train) sets.train.emplace(load(Split::train));
    if (!in.config.data.eval.empty() || in.config.data.eval_fraction > 0) sets.eval.emplace(load(Split::eval));
  };
  for (const bool is_first : {true, false}) {  // a rank of each machine prepares, the others read what it left
    bool is_left = false;
    try {
      if ((in.world.local_rank() == 0) == is_first) load_all();
    } catch (const Stopped&) {
      is_left = true;
    }
    leave_together(in.world, is_left, "preparing data");
  }
  return sets;
}

std::string left_out_notice(const PackedDataset& set, const std::string& source) {
  if (set.rows_left_out() == 0) return "";
  return fmt::format("note: {} of {} rows of {} have no scored token and are left out", set.rows_left_out(),
                     set.rows_left_out() + set.rows(), source);
}

void require_known_token(const JobInputs& in, const Model& model, const Tokenizer& tokenizer, int32_t largest_id) {
  if (largest_id < model.config().vocab_size) return;
  throw UserError((in.config.model.tokenizer_folder() / "tokenizer.json").string(),
                  fmt::format("the token \"{}\" has the id {}, but the model's vocab_size is {}",
                              tokenizer.token(largest_id), largest_id, model.config().vocab_size),
                  "tokenizer and model do not belong together: look at model.tokenizer and model.path");
}

void require_known_tokens(const JobInputs& in, const Model& model, const Datasets& sets) {
  if (sets.train) require_known_token(in, model, sets.tokenizer, sets.train->largest_id());
  if (sets.eval) require_known_token(in, model, sets.tokenizer, sets.eval->largest_id());
}

std::string unknown_words(std::span<const int32_t> tokens, const Tokenizer& tokenizer, const std::string& whose,
                          const ModelOptions& model) {
  const auto unknown = tokenizer.unknown();
  if (!unknown || tokens.empty()) return "";
  const auto count = std::count(tokens.begin(), tokens.end(), *unknown);
  const double share = static_cast<double>(count) / static_cast<double>(tokens.size());
  if (share <= 0.01) return "";
  const bool is_other = !model.tokenizer.empty() && model.tokenizer != model.path;
  const bool has_own = is_other && std::filesystem::exists(model.path / "tokenizer.json");
  return fmt::format("warning: {:.0f} % of the {} tokens are {}: {} does not know these words{}", 100 * share, whose,
                     tokenizer.token(*unknown),
                     is_other ? fmt::format("the tokenizer of model.tokenizer, \"{}\",", model.tokenizer.string())
                              : "the model's tokenizer",
                     has_own ? "; model.tokenizer=\"\" takes the one of model.path" : "");
}

}  // namespace tessera

#include "cli/workspace.h"

#include <algorithm>

#include "comm/stop_together.h"
#include "core/error.h"
#include "data/encoding.h"
#include "data/token_data.h"
#include "data/token_file.h"
#include "io/files.h"
#include "model/config_fingerprint.h"

namespace tessera {
namespace {

/// A large file is hashed once a node; the other ranks of the node pass nothing, and agree with everyone.
void require_equal_where_known(Communicator& world, const std::string& what, const std::string& value) {
  std::string first;
  for (const auto& bytes : world.all_gather(std::as_bytes(std::span(value)))) {
    const std::string other(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (other.empty()) continue;
    if (first.empty()) first = other;
    if (other != first)
      throw UserError("", fmt::format("{} differ between the machines of this job ({} and {})", what, first, other),
                      "copy the same files to every machine");
  }
}

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
    TokenData data = load_split(data_config(in), sets.tokenizer, split, &notice, rules);
    if (!notice.empty()) sets.notices.push_back(notice);
    if (split == Split::train && objective_of(train.objective).rows == ExampleRows::answers)
      data = answers_only(std::move(data));
    if (const std::string warning = unknown_words(data.tokens, sets.tokenizer, "data's"); !warning.empty())
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

std::string unknown_words(std::span<const int32_t> tokens, const Tokenizer& tokenizer, const std::string& whose) {
  const auto unknown = tokenizer.unknown();
  if (!unknown || tokens.empty()) return "";
  const auto count = std::count(tokens.begin(), tokens.end(), *unknown);
  const double share = static_cast<double>(count) / static_cast<double>(tokens.size());
  if (share <= 0.01) return "";
  return fmt::format("warning: {:.0f} % of the {} tokens are {}: the model's tokenizer does not know these words",
                     100 * share, whose, tokenizer.token(*unknown));
}

std::string length_notice(const Model& model, const std::string& what, int64_t tokens) {
  const int64_t known = model.config().max_position_embeddings;
  if (tokens <= known) return "";
  return fmt::format("note: {} of {} tokens are longer than the {} positions that config.json says the model knows",
                     what, tokens, known);
}

void tell(const JobInputs& in, const std::string& notice) {
  if (in.world.rank() == 0 && !in.quiet && !notice.empty()) fmt::print(stderr, "{}\n", notice);
}

std::function<void(const std::string&)> teller(const JobInputs& in) {
  return [&in](const std::string& notice) { tell(in, notice); };
}

Model::Settings model_settings(const JobInputs& in, int64_t max_position) {
  Model::Settings settings;
  settings.model = in.config.model;
  settings.sharing = in.config.sharing;
  settings.adapter = in.config.adapter;
  const bool trains = in.config.job == "train" || in.config.job == "replay";
  settings.train_base = trains && in.config.adapter.method == "none";
  settings.freeze = in.config.trainer.train.freeze;
  settings.gradients = in.config.job == "train" && in.config.trainer.train.estimator == "backprop";
  settings.max_position = max_position;
  settings.check_seal = in.world.local_rank() == 0;
  settings.seed = static_cast<uint64_t>(in.config.trainer.train.seed);
  settings.where_model = in.recipe.where("model", "path");
  settings.where_sharing = in.recipe.places("sharing");
  settings.where_adapter = in.recipe.places("adapter");
  return settings;
}

void require_agreement(const JobInputs& in, Model& model, const Datasets& sets) {
  require_equal(in.world, "the training data", sets.train ? sets.train->hash() : "");
  require_equal(in.world, "the evaluation data", sets.eval ? sets.eval->hash() : "");
  require_equal(in.world, "the numbers of config.json", config_fingerprint(model.config()));
  require_equal(in.world, "the weights' layout", fmt::format("{:016x}", model.views_fingerprint()));
  const auto values = model.pool().trainable().values;
  require_equal(in.world, "the trained parameters",
                sha256_hex(std::span(static_cast<const std::byte*>(values.data), static_cast<size_t>(values.bytes()))));
  require_equal_where_known(in.world, "the base weights",
                            in.world.size() > 1 && in.world.local_rank() == 0 ? model.base_fingerprint() : "");
}

std::filesystem::path run_folder_path(const JobInputs& in) {
  return in.config.run.dir.empty() ? std::filesystem::path("runs") / in.recipe.name() : in.config.run.dir;
}

}  // namespace tessera

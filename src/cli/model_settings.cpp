#include "cli/model_settings.h"

#include "core/error.h"
#include "train/estimator.h"

namespace tessera {

Model::Settings model_settings(const JobInputs& in, int64_t max_position) {
  Model::Settings settings;
  settings.model = in.config.model;
  settings.sharing = in.config.sharing;
  settings.adapter = in.config.adapter;
  const Job& job = job_of(in.config);
  settings.train_base = job.moves_values && in.config.adapter.method == "none";
  settings.freeze = in.config.trainer.train.freeze;
  settings.gradients = job.trains && estimator_of(in.config.trainer).has_gradients();
  settings.max_position = max_position;
  settings.device = device_of(in.config.run.device);
  settings.check_seal = in.world.local_rank() == 0;
  settings.seed = static_cast<uint64_t>(in.config.trainer.train.seed);
  settings.where_model = in.recipe.where("model", "path");
  settings.where_freeze = in.recipe.where("train", "freeze");
  settings.where_sharing = in.recipe.places("sharing");
  settings.where_adapter = in.recipe.places("adapter");
  return settings;
}

Compute::Choice compute_choice(const JobInputs& in) {
  return {.device = device_of(in.config.run.device), .backend = in.config.run.backend, .threads = in.threads};
}

std::string length_notice(const Model& model, const std::string& what, int64_t tokens) {
  const int64_t known = model.config().max_position_embeddings;
  if (tokens <= known) return "";
  return fmt::format("note: {} of {} tokens are longer than the {} positions that config.json says the model knows",
                     what, tokens, known);
}

}  // namespace tessera

// What each job will take, and which keys make it smaller.

#include <algorithm>

#include "cli/going_on.h"
#include "cli/plan.h"
#include "cli/results.h"
#include "cli/spsa_run.h"
#include "data/data_plan.h"
#include "io/files.h"
#include "model/export.h"
#include "train/backprop.h"

namespace tessera {
namespace {

/// Moments, or the seed pool's sums, of the replica.
int64_t spsa_state_bytes(const TrainerConfig& config, int64_t count) {
  if (config.spsa.directions == "pool") return 12 * count + 8 * config.spsa.pool_size;
  return optimizer_state_bytes(config.optimizer, count);
}

void plan_spsa(const JobInputs& in, Model& model, MemoryPlan& memory) {
  const TrainConfig& train = in.config.trainer.train;
  const auto prober = make_prober(in.config.trainer.spsa, model);
  memory.optimizer = spsa_state_bytes(in.config.trainer, model.pool().trainable().values.shape.count());
  memory.assembled += prober->owned_bytes();
  memory.activations =
      std::max(memory.activations, prober->plan_bytes(prober->micro_rows(train), train.sequence_length, in.threads));
}

void plan_backprop(const JobInputs& in, Model& model, MemoryPlan& memory) {
  const TrainConfig& train = in.config.trainer.train;
  memory.optimizer = optimizer_state_bytes(in.config.trainer.optimizer, model.pool().trainable().values.shape.count());
  memory.activations =
      std::max(memory.activations,
               plan_backprop_bytes(model, micro_batch_rows(train, in.world.size()), train.sequence_length, in.threads,
                                   {.checkpoint_activations = train.checkpoint_activations, .dropout = {.on = true}}));
}

int64_t plan_evaluation(const JobInputs& in, Model& model) {
  const TrainConfig& train = in.config.trainer.train;
  return plan_score_bytes(model, micro_batch_rows(train, in.world.size()), train.sequence_length, in.threads);
}

/// Of SPSA on several ranks, which hand a replica's state to each other when a run goes on.
int64_t plan_catching_up(const JobInputs& in, Model& model) {
  const TrainerConfig& config = in.config.trainer;
  if (config.train.estimator != "spsa" || in.world.size() == 1) return 0;
  const TensorView values = model.pool().trainable().values;
  const bool has_vectors = config.spsa.directions != "pool";
  return values.bytes() + (has_vectors ? optimizer_state_bytes(config.optimizer, values.shape.count()) : 0);
}

/// Of the splits that load_datasets will read.
int64_t plan_data(const JobInputs& in, bool need_train) {
  const DataConfig& data = in.config.data;
  std::vector<Split> splits;
  if (need_train && !data.train.empty()) splits.push_back(Split::train);
  if (data.has_eval()) splits.push_back(Split::eval);
  int64_t bytes = 0;
  for (const Split split : splits)
    bytes += plan_data_bytes(data, in.config.model.tokenizer_folder(), split, in.config.trainer.train.sequence_length);
  return bytes;
}

/// A dense model that does not hold the trained values bit for bit is read back and evaluated, in the arena of the training.
void plan_reading_back(const JobInputs& in, Model& model, MemoryPlan& memory) {
  const DType dtype = model.export_dtype();
  const bool as_trained = dtype == DType::f32 && !model.adapter() && !model.is_shared();
  if (!in.config.data.has_eval() || !writes_model(in, model) || as_trained) return;
  Model::Settings settings = model_settings(in, in.config.trainer.train.sequence_length);
  settings.model.init = "random";
  settings.model.dtype = name_of(dtype);
  settings.sharing = {};
  settings.adapter = {};
  settings.freeze = {};
  settings.train_base = settings.gradients = false;
  const JobPlan dense = plan_of_model(settings);
  memory.read_back = dense.memory.weights_and_gradients;
  memory.activations = std::max(memory.activations, plan_evaluation(in, *dense.model));
}

std::string lower_rows(const JobConfig& config) {
  const std::string rows = micro_batch_rows(config.trainer.train, 1) > 1 ? "train.micro_batch or " : "";
  return "lower " + rows + "train.sequence_length";
}

/// Whether less of a part would help. Without a plan it may.
bool matters(int64_t part, const MemoryPlan& plan) { return 5 * part >= plan.owned(); }

}  // namespace

JobPlan plan_train(const JobInputs& in) {
  JobPlan plan = plan_of_model(model_settings(in, in.config.trainer.train.sequence_length));
  Model& model = *plan.model;
  plan.memory.activations = plan_evaluation(in, model);
  if (in.config.trainer.train.estimator == "spsa")
    plan_spsa(in, model, plan.memory);
  else
    plan_backprop(in, model, plan.memory);
  // The optimizer's state is given back before results are written.
  plan.memory.results = std::max(plan_catching_up(in, model), plan_results(in, model) - plan.memory.optimizer);
  plan_reading_back(in, model, plan.memory);
  plan.memory.data = plan_data(in, true);
  plan.wire_bytes = wire_bytes_per_step(in, model);
  return plan;
}

JobPlan plan_evaluate(const JobInputs& in) {
  JobPlan plan = plan_of_results(in, in.config.trainer.train.sequence_length);
  plan.memory.activations = plan_evaluation(in, *plan.model);
  plan.memory.data = plan_data(in, false);
  return plan;
}

JobPlan plan_export(const JobInputs& in) {
  const bool is_trained = names_checkpoint(in.config.run) || in.config.sharing.method != "none";
  JobPlan plan =
      is_trained ? plan_of_results(in, kExportPositions) : plan_of_model(model_settings(in, kExportPositions));
  const bool merged = in.config.exports.merged || !in.recipe.has("export", "merged");
  plan.memory.activations = kExportScratch;
  plan.memory.results = std::max(merged ? plan_merged_bytes(*plan.model) : 0, plan_results(in, *plan.model));
  plan.one_rank = true;
  return plan;
}

namespace {

/// The recipe's training, with the optimizer and the directions of the run that is replayed: its log's header has the say.
TrainerConfig trainer_of_log(const JobInputs& in) {
  TrainerConfig config = in.config.trainer;
  std::filesystem::path file;
  try {
    file = replayed_run(in).log / "header.json";
  } catch (const UserError&) {
    return config;  // a note says that there is no log yet
  }
  const RunHeader header = RunHeader::parse(read_text_file(file), file.string());
  config.optimizer.name = header.optimizer;
  config.optimizer.momentum = header.momentum;
  config.spsa.directions = header.family == Family::pool ? "pool" : "independent";
  config.spsa.pool_size = header.lanes;
  return config;
}

}  // namespace

JobPlan plan_replay(const JobInputs& in) {
  JobPlan plan = plan_of_model(model_settings(in, kExportPositions));
  plan.memory.activations = kExportScratch;
  plan.memory.optimizer = spsa_state_bytes(trainer_of_log(in), plan.model->pool().trainable().values.shape.count());
  plan.memory.results = in.config.replay.branch.empty() ? plan_results(in, *plan.model) : 0;
  plan.one_rank = true;
  return plan;
}

JobPlan plan_prepare(const JobInputs& in) {
  JobPlan plan;
  plan.memory.data = plan_data(in, true);
  return plan;
}

std::string smaller_training(const JobConfig& config, const MemoryPlan& plan) {
  const bool is_spsa = config.trainer.train.estimator == "spsa";
  std::vector<std::string> ways;
  if (matters(plan.activations, plan)) {
    ways.push_back(lower_rows(config));
    if (!is_spsa && !config.trainer.train.checkpoint_activations)
      ways.push_back("set train.checkpoint_activations = true");
  }
  if (is_spsa && config.trainer.spsa.side_by_side > 1 && matters(plan.activations + plan.assembled, plan))
    ways.push_back("lower spsa.side_by_side");
  if (matters(plan.optimizer, plan) && config.trainer.optimizer.name == "adamw")
    ways.push_back("set optimizer.name = \"sgd\"");
  if (matters(plan.weights_and_gradients, plan) && config.adapter.method == "none")
    ways.push_back("train an adapter (adapter.method = \"lora\")");
  if (matters(plan.data, plan) && plan.data > 0) ways.push_back("lower data.max_documents");
  std::string hint = ways.empty() ? "use a machine with more memory" : ways[0];
  for (size_t i = 1; i < ways.size(); ++i) hint += (i + 1 == ways.size() ? ", or " : ", ") + ways[i];
  return hint;
}

std::string smaller_evaluation(const JobConfig& config, const MemoryPlan& plan) {
  return matters(plan.activations, plan) ? lower_rows(config) : "use a machine with more memory";
}

std::string smaller_generation(const JobConfig& config, const MemoryPlan& plan) {
  if (!matters(plan.activations + plan.tables, plan)) return "use a machine with more memory";
  return config.generate.batch > 1 ? "lower generate.max_new_tokens or generate.batch"
                                   : "lower generate.max_new_tokens";
}

std::string smaller_export(const JobConfig& config, const MemoryPlan& plan) {
  if (matters(plan.results, plan) && config.adapter.method != "none")
    return "set export.merged = false and export.peft = true: the adapter alone takes less";
  return "use a machine with more memory";
}

std::string smaller_preparation(const JobConfig&, const MemoryPlan&) { return "lower data.max_documents"; }

}  // namespace tessera

// What each job will take, and which keys make it smaller.

#include <algorithm>

#include "cli/going_on.h"
#include "cli/plan.h"
#include "cli/results.h"
#include "cli/spsa_run.h"
#include "data/data_plan.h"
#include "io/files.h"
#include "model/export.h"
#include "score/forward.h"
#include "train/estimator.h"
#include "train/spsa/run_header.h"
#include "train/spsa/spsa_estimator.h"
#include "train/steps.h"

namespace tessera {
namespace {

int64_t plan_evaluation(const JobInputs& in, Model& model) {
  const TrainConfig& train = in.config.trainer.train;
  return plan_score_bytes(model, micro_batch_rows(train, in.world.size()), train.sequence_length, in.threads);
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
  const Estimator& estimator = estimator_of(in.config.trainer);
  const StepMemory step = estimator.plan(in.config.trainer, model, in.world.size(), in.threads);
  plan.memory.optimizer = step.optimizer;
  plan.memory.activations = std::max(plan.memory.activations, step.activations);
  plan.memory.assembled += step.copies;
  // The optimizer's state is given back before results are written.
  plan.memory.results = std::max(step.handing_over, plan_results(in, model) - step.optimizer);
  plan_reading_back(in, model, plan.memory);
  plan.memory.data = plan_data(in, true);
  plan.wire_bytes = estimator.wire_bytes(model);
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

/// Of the replica that replays the run: its log's header has the say on the optimizer and the directions.
int64_t plan_replica(const JobInputs& in, int64_t count) {
  OptimizerConfig optimizer = in.config.trainer.optimizer;
  SpsaConfig spsa = spsa_config(in.config.trainer);
  std::filesystem::path file;
  try {
    file = replayed_run(in).log / "header.json";
  } catch (const UserError&) {
    return replica_state_bytes(spsa, optimizer, count);  // a note says that there is no log yet
  }
  const RunHeader header = RunHeader::parse(read_text_file(file), file.string());
  optimizer.name = header.optimizer;
  optimizer.momentum = header.momentum;
  spsa.directions = header.family == Family::pool ? "pool" : "independent";
  spsa.pool_size = header.lanes;
  return replica_state_bytes(spsa, optimizer, count);
}

}  // namespace

JobPlan plan_replay(const JobInputs& in) {
  JobPlan plan = plan_of_model(model_settings(in, kExportPositions));
  plan.memory.activations = kExportScratch;
  plan.memory.optimizer = plan_replica(in, plan.model->pool().trainable().values.shape.count());
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
  std::vector<std::string> ways;
  if (matters(plan.activations, plan)) ways.push_back(lower_rows(config));
  const LessMemory less = estimator_of(config.trainer).less_memory(config.trainer);
  if (!less.way.empty() && matters(plan.activations + (less.lowers_copies ? plan.assembled : 0), plan))
    ways.push_back(less.way);
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

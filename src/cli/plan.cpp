#include "cli/plan.h"

#include <algorithm>

#include "cli/memory_limit.h"
#include "cli/model_settings.h"
#include "cli/results.h"
#include "cli/trained_weights.h"
#include "core/error.h"
#include "data/data_plan.h"
#include "model/export.h"
#include "score/forward.h"
#include "train/steps.h"
#include "train/trainer.h"

namespace tessera {

std::string MemoryPlan::text() const {
  std::string text =
      fmt::format("weights and gradients {}, optimizer {}, activations {}, assembled adapter {}",
                  megabytes(weights_and_gradients), megabytes(optimizer), megabytes(activations), megabytes(assembled));
  if (tables > 0) text += ", tables " + megabytes(tables);
  if (data > 0) text += ", data about " + megabytes(data);
  if (results > 0) text += ", writing results " + megabytes(results);
  return text;
}

JobPlan plan_of_model(Model::Settings settings) {
  settings.memory = Memory::counted;
  settings.check_seal = false;  // the job does
  JobPlan plan{.model = std::make_unique<Model>(settings)};
  Model& model = *plan.model;
  plan.memory = {.mapped = model.pool().frozen_mapped_bytes(),
                 .weights_and_gradients = model.pool().owned_bytes(),
                 .assembled = model.bound_adapter() ? model.bound_adapter()->assembled_bytes() : 0,
                 .tables = model.table_bytes()};
  plan.notes = model.notes();
  return plan;
}

JobPlan plan_of_results(const JobInputs& in, int64_t max_position) {
  JobInputs silent = in;
  silent.quiet = true;  // the job itself says what it found
  std::optional<Model::Settings> settings;
  std::string missing;
  // What a job lacks may be there by the time it starts: a note, and the plan of the model as the recipe has it.
  try {
    settings = trained_model_settings(silent, max_position);
  } catch (const UserError& error) {
    missing = error.what();
  }
  JobPlan plan = plan_of_model(settings ? *settings : model_settings(in, max_position));
  if (!missing.empty()) plan.notes.push_back("note: as things stand the job would end with: " + missing);
  return plan;
}

int64_t plan_results(const JobInputs& in, Model& model) {
  return std::max(writes_model(in, model) ? plan_merged_bytes(model) : 0,
                  model.adapter() && in.config.exports.peft ? plan_peft_bytes(model) : 0);
}

int64_t plan_evaluation(const JobInputs& in, Model& model) {
  const TrainConfig& train = in.config.trainer.train;
  return plan_score_bytes(model, micro_batch_rows(train, in.share.count), train.sequence_length, in.threads);
}

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

std::string lower_rows(const JobConfig& config) {
  const std::string rows = micro_batch_rows(config.trainer.train, 1) > 1 ? "train.micro_batch or " : "";
  return "lower " + rows + "train.sequence_length";
}

bool matters(int64_t part, const MemoryPlan& plan) { return 5 * part >= plan.owned(); }

std::string smaller_writing(const JobConfig& config, const MemoryPlan& plan) {
  if (matters(plan.results, plan) && config.adapter.method != "none")
    return "set export.merged = false and export.peft = true: the adapter alone takes less";
  return "use a machine with more memory";
}

std::string smaller_hint(const JobConfig& config, const MemoryPlan& plan) {
  return job_of(config).smaller(config, plan);
}

MemoryPlan require_memory(const JobInputs& in, const JobPlan& plan) {
  const int64_t ranks = plan.one_rank ? 1 : in.world.local_size(), mine = plan.memory.owned();
  const std::string where = job_of(in.config).trains ? in.recipe.where("train", "batch") : in.recipe.where("", "job");
  const std::string hint = smaller_hint(in.config, plan.memory) + (ranks > 1 ? ", or start fewer ranks" : "");
  const int64_t node = (mine + held_bytes()) * ranks + plan.memory.mapped + plan.memory.read_back;
  if (const MemoryLimit limit = node_memory_limit(); node > limit.bytes)
    throw UserError(where,
                    fmt::format("this run needs {} on this machine ({} ranks), {} {}", megabytes(node), ranks,
                                limit.who, megabytes(limit.bytes)),
                    hint);
  if (const MemoryLimit limit = process_memory_limit(); mine > limit.bytes)
    throw UserError(where,
                    fmt::format("this run needs {} beside what it holds already, {} {}", megabytes(mine), limit.who,
                                megabytes(limit.bytes)),
                    hint);
  return plan.memory;
}

int64_t dense_parameters(Model& model) {
  int64_t count = 0;
  for (const WeightSpec& spec : model.decoder().specs())
    if (spec.storage == spec.name) count += spec.shape.count();
  return count;
}

Footprint footprint(Model& model, const MemoryPlan& memory) {
  const ParameterPool& pool = model.pool();
  const FlatParams& flat = pool.trainable();
  const int64_t slots = flat.values.shape.count(), flat_bytes = flat.values.bytes() * (flat.grads.empty() ? 1 : 2);
  // The pool's memory is padded slot by slot; what is compared is what a number costs, times numbers.
  const int64_t each = slots > 0 ? (flat_bytes + memory.optimizer) / slots : 0;  // bytes of a number that is trained
  const int64_t frozen = memory.mapped + memory.weights_and_gradients - flat_bytes, dense = dense_parameters(model);
  const int64_t held = each * pool.trainable_count() + frozen;
  if (!model.adapter()) return {held, each * (dense - pool.frozen_count()) + frozen};
  const int64_t base = model.is_shared() ? dense * size_of(model.export_dtype()) : frozen;
  return {held, each * (model.virtual_parameters() - dense) + base};
}

std::string megabytes(int64_t bytes) {
  if (bytes < 1000) return fmt::format("{} bytes", bytes);
  if (bytes < 1000 * 1000) return fmt::format("{:.1f} kB", static_cast<double>(bytes) * 1e-3);
  if (bytes < 1000 * 1000 * 1000) return fmt::format("{:.1f} MB", static_cast<double>(bytes) * 1e-6);
  return fmt::format("{:.2f} GB", static_cast<double>(bytes) * 1e-9);
}

}  // namespace tessera

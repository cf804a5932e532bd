#include "compress/stages.h"

#include <algorithm>

#include "comm/from_root.h"
#include "core/error.h"
#include "io/files.h"
#include "train/steps.h"

namespace tessera {

Stage probe_stage();
Stage gates_stage();
Stage remove_stage();
Stage replace_stage();
Stage group_stage();
Stage share_stage();
Stage cure_stage();
Stage report_stage();

const std::vector<Stage>& stages() {
  static const std::vector<Stage> all = {probe_stage(), gates_stage(), remove_stage(), replace_stage(),
                                         group_stage(), share_stage(), cure_stage(),   report_stage()};
  return all;
}

std::vector<const Stage*> asked_stages(const FoldConfig& fold) {
  std::vector<const Stage*> asked;
  for (const Stage& stage : stages()) {
    const bool is_made = fold.plan.empty() || !stage.in_plan;
    if (is_made && (!stage.applies || stage.applies(fold))) asked.push_back(&stage);
    if (stage.name == fold.until) break;
  }
  return asked;
}

bool is_asked(const FoldConfig& fold, std::string_view name) {
  return std::ranges::any_of(asked_stages(fold), [&](const Stage* stage) { return stage->name == name; });
}

namespace {

/// By section: what the job reads whichever stages run. What changes no stage's files is in no Stage::keys.
const std::map<std::string, std::vector<std::string>>& keys_of_job() {
  static const std::map<std::string, std::vector<std::string>> keys = {
      {"fold", {"until", "reuse", "plan", "remove", "selector", "cure"}},
      {"train", {"sequence_length", "micro_batch", "seed", "objective", "estimator", "checkpoint_activations"}}};
  return keys;
}

}  // namespace

std::vector<std::string> keys_that_are_read(const FoldConfig& fold, const std::string& section) {
  const auto of_job = keys_of_job().find(section);
  std::vector<std::string> keys = of_job == keys_of_job().end() ? std::vector<std::string>() : of_job->second;
  for (const Stage* stage : asked_stages(fold))
    for (const std::string& key : stage->keys)
      if (key.starts_with(section + ".")) keys.push_back(key.substr(section.size() + 1));
  return keys;
}

const Stage& find_stage(std::string_view name) {
  const auto stage = std::ranges::find(stages(), name, &Stage::name);
  TS_CHECK(stage != stages().end(), "\"{}\" is no stage", name);
  return *stage;
}

Json file_of_stage(const StageInputs& in, std::string_view name) {
  const std::filesystem::path file = in.folder / find_stage(name).file;
  return Json::parse(text_on_all(in, file), file.string());
}

std::string text_on_all(const StageInputs& in, const std::filesystem::path& file) {
  return from_root(in.world, [&] { return read_text_file(file); });
}

int64_t rows_of_pass(const TrainConfig& train, int64_t rows, int ranks) {
  TrainConfig of_rows = train;
  of_rows.batch = rows;
  return micro_batch_rows(of_rows, ranks);
}

double computed_parameters(Model& model) {
  double count = 0;
  for (const WeightSpec& spec : model.decoder().specs())
    if (spec.role != Role::embedding) count += static_cast<double>(spec.shape.count());
  return count;
}

}  // namespace tessera

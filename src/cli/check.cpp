#include "cli/check.h"

#include "cli/device_name.h"
#include "cli/going_on.h"
#include "cli/model_settings.h"
#include "cli/outputs.h"
#include "cli/plan.h"
#include "cli/preflight.h"
#include "cli/rates.h"
#include "cli/run_path.h"
#include "cli/trained_weights.h"
#include "core/error.h"
#include "io/output.h"
#include "train/estimator.h"

namespace tessera {

namespace {

/// Parameters as --check tells them; none of a job without a model.
struct Counts {
  int64_t trained = 0, frozen = 0, virtual_count = 0;
  Footprint bytes{};

  explicit Counts(const JobPlan& plan) {
    if (!plan.model) return;
    trained = plan.model->pool().trainable_count();
    frozen = plan.model->pool().frozen_count();
    virtual_count = plan.model->virtual_parameters();
    bytes = footprint(*plan.model, plan.memory);
  }
  int64_t physical() const { return trained + frozen; }
};

/// The adapter that the job would start with must fit; where there is none yet, a note says so.
void check_adapter(const JobInputs& in, JobPlan& plan) {
  if (!plan.model || !plan.model->adapter()) return;
  const Job& job = job_of(in.config);
  if (!job.trains && names_checkpoint(in.config.run)) return;  // the job reads its values from there
  if (job.moves_values) return start_from_saved_adapter(in.config, *plan.model);
  if (in.config.adapter.load.empty() && !std::filesystem::exists(run_folder_path(in) / "adapter" / "adapter.json"))
    plan.notes.push_back(fmt::format(
        "note: as things stand the job would end: adapter.load is not set and \"{}\" holds no trained adapter",
        run_folder_path(in).string()));
  else
    use_trained_weights(in, *plan.model);
}

/// What the run's folder lacks or holds is no fault of the recipe, and may be mended before the job starts:
/// a note says so.
void note_what_would_stop(const JobInputs& in, JobPlan& plan) {
  const Job& job = job_of(in.config);
  if (!job.look) return;
  try {
    job.look(in, plan.model.get());
  } catch (const UserError& error) {
    plan.notes.push_back(fmt::format("note: as things stand the job would end with: {}", error.what()));
  }
}

/// Of a training; the last is absent where the number of steps is not known before the data is read.
Json rates_as_json(const JobInputs& in) {
  const Rates rates = rates_of(in.config.trainer.optimizer, in.config.trainer.train.steps);
  Json json = Json::object().set("first", rates.first).set("highest", rates.highest);
  if (rates.last) json.set("last", *rates.last);
  return json;
}

Json plan_as_json(const JobInputs& in, const JobPlan& plan) {
  const Counts counts(plan);
  const MemoryPlan& memory = plan.memory;
  Json notes = Json::array();
  for (const std::string& note : plan.notes) notes.push_back(note);
  Json json = Json::object();
  json.set("parameters", Json::object()
                             .set("trained", counts.trained)
                             .set("frozen", counts.frozen)
                             .set("virtual", counts.virtual_count))
      .set("weights", Json::object().set("physical", counts.physical()).set("virtual", counts.virtual_count))
      .set("bytes_per_rank", memory.owned())
      .set("bytes", Json::object()
                        .set("mapped", memory.mapped)
                        .set("read_back", memory.read_back)
                        .set("weights_and_gradients", memory.weights_and_gradients)
                        .set("optimizer", memory.optimizer)
                        .set("activations", memory.activations)
                        .set("assembled", memory.assembled)
                        .set("tables", memory.tables)
                        .set("data", memory.data)
                        .set("results", memory.results)
                        .set("held_bytes", counts.bytes.held)
                        .set("dense_bytes", counts.bytes.dense))
      .set("wire_bytes_per_step", plan.wire_bytes)
      .set("notes", notes)
      .set("device", device_name(in))
      .set("ranks", in.world.size())
      .set("threads", in.threads);
  if (job_of(in.config).trains) json.set("learning_rate", rates_as_json(in));
  for (const auto& [key, value] : plan.more) json.set(key, value);
  return json;
}

void print_plan(const JobInputs& in, const JobPlan& plan) {
  const Counts counts(plan);
  const MemoryPlan& memory = plan.memory;
  print_out("parameters       trained {}, frozen {}, virtual {}\n", counts.trained, counts.frozen,
            counts.virtual_count);
  if (counts.virtual_count > counts.physical())
    print_out("against dense    {} of weights, gradients and moments; each weight for itself: {} ({:.1f} %)\n",
              megabytes(counts.bytes.held), megabytes(counts.bytes.dense),
              100 * static_cast<double>(counts.bytes.held) / static_cast<double>(counts.bytes.dense));
  print_out("memory a rank    {}: {}\n", megabytes(memory.owned()), memory.text());
  print_out("mapped           {} a machine, shared by its ranks\n", megabytes(memory.mapped));
  if (memory.read_back > 0)
    print_out("read back        {} a machine, at the end: the dense model that is written\n",
              megabytes(memory.read_back));
  const bool trains = job_of(in.config).trains;
  const OptimizerConfig& optimizer = in.config.trainer.optimizer;
  const auto steps = in.config.trainer.train.steps;
  if (trains)
    print_out("sent             {} a step and rank: {}\n", megabytes(plan.wire_bytes),
              estimator_of(in.config.trainer).words().sent);
  if (trains) print_out("learning rate    {}\n", rates_in_words(optimizer, steps));
  print_out("device           {}\n", device_name(in));
  print_out("ranks, threads   {} x {}\n", in.world.size(), in.threads);
  for (const std::string& note : plan.notes) print_out("{}\n", note);
  const int64_t length = in.config.trainer.train.sequence_length;
  if (const std::string notice = plan.model ? length_notice(*plan.model, "rows", length) : ""; !notice.empty())
    print_out("{}\n", notice);
  if (const std::string notice = steps ? schedule_notice(optimizer, *steps, kNewestRules) : "";
      trains && !notice.empty())
    print_out("{}\n", notice);
  print_out("the recipe is in order\n");
}

}  // namespace

int check_job(const JobInputs& in, bool as_json) {
  require_free_outputs(in);
  JobPlan plan = job_of(in.config).plan(in);
  require_memory(in, plan);
  check_adapter(in, plan);
  preflight(in, plan.model.get());
  if (const Job& job = job_of(in.config); job.compare) job.compare(in, *plan.model);
  note_what_would_stop(in, plan);
  if (in.world.rank() != 0) return kDone;
  if (as_json)
    print_out("{}\n", plan_as_json(in, plan).dump());
  else
    print_plan(in, plan);
  return kDone;
}

}  // namespace tessera

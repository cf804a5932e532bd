#pragma once
// The jobs that a recipe can ask for.

#include <memory>
#include <string_view>
#include <vector>

#include "cli/job_config.h"
#include "comm/communicator.h"

namespace tessera {

/// What every job gets.
struct JobInputs {
  const JobConfig& config;
  Recipe& recipe;
  Communicator& world;
  int threads;
  bool quiet = false, launched = false;
};

struct JobPlan;
struct MemoryPlan;

struct Job {
  std::string_view name, help;
  int (*run)(const JobInputs&);                                 // returns the exit code
  JobPlan (*plan)(const JobInputs&);                            // what it will take, found without taking it
  std::string (*smaller)(const JobConfig&, const MemoryPlan&);  // which keys make it take less, as a hint
};
const std::vector<Job>& jobs();
/// The recipe's.
const Job& job_of(const JobConfig&);

int train_job(const JobInputs&);
int prepare_job(const JobInputs&);
int evaluate_job(const JobInputs&);
int generate_job(const JobInputs&);
int export_job(const JobInputs&);
int replay_job(const JobInputs&);
/// What --check sees of a replay: its log, the round, where results go, and that the recipe's model is the run's. Values of weights are not compared.
/// @param laid_out  the recipe's model; it needs no values
void look_at_replay(const JobInputs&, Model& laid_out);

JobPlan plan_train(const JobInputs&);
JobPlan plan_prepare(const JobInputs&);
JobPlan plan_evaluate(const JobInputs&);
JobPlan plan_generate(const JobInputs&);
JobPlan plan_export(const JobInputs&);
JobPlan plan_replay(const JobInputs&);

std::string smaller_training(const JobConfig&, const MemoryPlan&);
std::string smaller_preparation(const JobConfig&, const MemoryPlan&);
std::string smaller_evaluation(const JobConfig&, const MemoryPlan&);
std::string smaller_generation(const JobConfig&, const MemoryPlan&);
std::string smaller_export(const JobConfig&, const MemoryPlan&);

/// --check: the plan as text, or as one JSON object.
int check_job(const JobInputs&, bool as_json);
/// --show-batch: the first batch, decoded.
int show_batch(const JobInputs&);

/// trainer log RUN: what a log of rounds holds.
/// @param run   a run's folder, or its log's
/// @param last  rounds of the table; when not given 10, or all in JSON
int log_command(const std::filesystem::path& run, std::optional<int64_t> last, bool as_json);

/// Exit codes: the outside contract.
constexpr int kDone = 0, kOurFault = 1, kUserError = 2, kStopped = 130;

}  // namespace tessera

#pragma once
// What a job will take: memory a rank, traffic a step. Known without taking it,
// and compared with what there is before anything is allocated.

#include "cli/jobs.h"

namespace tessera {

/// Bytes a rank needs: what it owns, what it shares with the ranks of its node, and what a step takes.
struct MemoryPlan {
  int64_t mapped = 0, weights_and_gradients = 0, optimizer = 0, activations = 0, assembled = 0;
  int64_t read_back = 0;  // mapped as well, at the end: the dense model that was written, to be evaluated
  int64_t tables = 0;     // rotary positions, and which weight reads which number of a pool
  int64_t data = 0;       // prepared tokens, about
  int64_t results = 0;    // what writing them takes beyond what is free by then, or handing state to other ranks
  int64_t owned() const {
    return weights_and_gradients + optimizer + activations + assembled + tables + data + results;
  }
  /// "weights and gradients 1.2 MB, optimizer 2.4 MB, ...": the parts of `owned`.
  std::string text() const;
};

/// What a job will take. Each job has a function that finds it; --check prints it,
/// and the job itself refuses to start when there is less.
struct JobPlan {
  std::unique_ptr<Model> model{};  // laid out and not allocated; null: the job has none
  MemoryPlan memory{};
  int64_t wire_bytes = 0;  // payload that a rank hands to collectives in a step
  std::vector<std::string> notes{};
  bool one_rank = false;                             // the other ranks of the job do nothing
  std::vector<std::pair<std::string, Json>> more{};  // of the job alone, as --check --json tells it
};

/// The part of a plan that the model makes, laid out as the settings say.
JobPlan plan_of_model(Model::Settings);
/// The same for what a training left (trained_model_settings). Where there is nothing yet,
/// a note says so and the recipe's model is planned.
JobPlan plan_of_results(const JobInputs&, int64_t max_position);
/// Bytes that exporting the results of a training takes ([export]).
int64_t plan_results(const JobInputs&, Model&);

/// Bytes that evaluating held-out rows takes.
int64_t plan_evaluation(const JobInputs&, Model&);
/// Bytes of the splits that load_datasets will read.
int64_t plan_data(const JobInputs&, bool need_train);

/// The plan's memory. @throws UserError when the machine, a control group or a limit of this process allows less;
/// the hint is the job's
MemoryPlan require_memory(const JobInputs&, const JobPlan&);
/// What makes the recipe's job smaller, as a hint: that which matters in the plan, or all when none is given.
std::string smaller_hint(const JobConfig&, const MemoryPlan& = {});
/// For such hints: whether less of a part would help. Without a plan it may.
bool matters(int64_t part, const MemoryPlan&);
/// "lower train.micro_batch or train.sequence_length", as far as there is something to lower.
std::string lower_rows(const JobConfig&);
/// The hint of jobs whose work is to write a model.
std::string smaller_writing(const JobConfig&, const MemoryPlan&);

/// Numbers of the dense model: one a weight, adapters apart.
int64_t dense_parameters(Model&);

/// Bytes of weights, gradients and the optimizer's state: as they are held,
/// and as they would be with a number for each weight.
struct Footprint {
  int64_t held, dense;
};
Footprint footprint(Model&, const MemoryPlan&);

std::string megabytes(int64_t bytes);

}  // namespace tessera

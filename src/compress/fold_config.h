#pragma once
// compress/: makes a trained model smaller in depth, stage by stage (docs/foldgpt.md).
// Here: the recipe's section [fold].

#include <filesystem>
#include <optional>
#include <string>

#include "core/fields.h"

namespace tessera {

class Recipe;

/// [fold]
struct FoldConfig {
  double remove = 0.125;
  std::string selector = "gates";
  std::string replace = "none";
  int64_t replace_steps = 300;
  double replace_lr = 2e-4;
  std::optional<double> target;
  std::string gates = "block";
  bool absorb = false;
  std::string gate_estimator = "backprop";
  int64_t gate_steps = 400, gate_batch = 8;
  double gate_lr = 0.02;
  std::optional<double> gate_remove;
  double gate_eps_end = 1e-3, gate_weight = 10;
  std::string gate_loss = "ce";
  int64_t protect_head = 1, protect_tail = 1;
  std::string planning = "cost";
  int64_t group = 2;
  std::optional<int64_t> groups;
  int64_t keep_head = 2, keep_tail = 1;
  std::string parent = "medoid", child = "norm";
  int64_t child_rank = 8;
  int64_t calibration_rows = 32;
  std::string cure = "adapter";
  double kl_weight = 1, temperature = 2, tail_weight = 1;
  int64_t tail_layers = 1;
  std::filesystem::path plan, reuse;
  std::string until;
  int64_t report_tokens = 0;

  void visit(Fields& v);

  /// The share of blocks that gates are trained for.
  double trained_remove() const { return gate_remove.value_or(remove); }
  bool has_sublayer_gates() const { return gates == "sublayer"; }
  /// Whether halves of blocks are removed, by trained gates: which ones is known once these are trained.
  bool removes_halves() const { return has_sublayer_gates() && selector == "gates" && remove > 0 && plan.empty(); }
};

/// Reads [fold] and adds the faults of its keys. A plan on the command line stands above keys that the recipe's file
/// gives and that the plan says: they are set to their defaults, so that the recipe that a run stores is what was run.
/// @return a line that says so; empty where none was given
std::string read_fold(Recipe&, FoldConfig&);

}  // namespace tessera

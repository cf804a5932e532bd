#pragma once
// A whole recipe: every section's struct, read and cross-checked in one place. A section that a single job reads is in
// that job's file.

#include <set>
#include <string>

#include "cli/own_sections.h"
#include "core/recipe.h"
#include "data/data_config.h"
#include "model/model.h"
#include "train/trainer.h"

namespace tessera {

/// How the first line of a recipe begins that a run has stored in its folder.
inline constexpr std::string_view kStoredRecipe = "# trainer ";

struct JobConfig {
  std::string job = "train";
  RunConfig run;
  ModelOptions model;
  DataConfig data;
  TrainerConfig trainer;
  SharingConfig sharing;
  AdapterConfig adapter;
  ExportConfig exports;
  OwnSections own;                 // of jobs
  std::vector<std::string> notes;  // what the user should know of a recipe that is in order
  std::set<std::string> unread;    // keys that this job, its method or its optimizer does not read

  void visit(Fields& v);  // the top-level keys
};

/// Reads every section, applies the rules between keys, and throws all faults together.
/// The recipe keeps looking at `config` (flat, resolved): it must outlive it.
void read_job(Recipe&, JobConfig& config);

}  // namespace tessera

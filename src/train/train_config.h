#pragma once
// The recipe's sections on training: [train], [optimizer], [checkpoint], [evaluate], [run], [log] and [export].

#include "core/fields.h"
#include "kernels/compute.h"
#include "kernels/cpu_target.h"
#include "score/objective.h"

namespace tessera {

/// What the registry of estimators has, as a key's choices and as its help.
std::vector<std::string> estimator_names();
std::string estimator_help();

/// [train]
struct TrainConfig {
  std::optional<int64_t> steps;
  std::optional<double> epochs;
  // In rows, rows and tokens. All draws of the run are keyed by the seed.
  int64_t batch = 16, micro_batch = 0, sequence_length = 512, seed = 1;
  std::string objective = "tokens", estimator = "backprop";
  double clip = 1.0;
  bool checkpoint_activations = false;
  std::vector<std::string> freeze;

  void visit(Fields& v) {
    v("steps", steps, at_least(0), "optimizer steps; or give epochs", OnResume::longer);
    v("epochs", epochs, above(0, 1e9), "passes over the training rows; or give steps", OnResume::longer);
    v("batch", batch, in_range(1, 1 << 24), "rows of one optimizer step, over all ranks; of one probe with spsa",
      OnResume::in_branch);
    v("micro_batch", micro_batch, at_least(0), "rows of one forward and backward pass of a rank; 0: about 512 tokens",
      OnResume::in_branch);
    v("sequence_length", sequence_length, in_range(2, 1 << 20), "tokens a row", OnResume::in_branch);
    v("seed", seed, at_least(0), "of drawn weights, data order and dropout");
    v("objective", objective, one_of(objective_names()), objective_help(), OnResume::in_branch);
    v("estimator", estimator, one_of(estimator_names()), "how gradients are found. " + estimator_help());
    v("clip", clip, in_f32(at_least(0)), "largest global gradient norm; 0: no clipping", OnResume::in_new_folder);
    v("checkpoint_activations", checkpoint_activations, anything(),
      "keep block inputs only and compute each block twice: less memory, about a third more time", OnResume::in_branch);
    v("freeze", freeze, anything(), "full training: regular expressions of tensors' names that are left as they are",
      OnResume::same_model);
  }
  void check(SectionCheck&) const;
};

/// [optimizer]
struct OptimizerConfig {
  std::string name = "adamw";
  double lr = 2e-4, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0, momentum = 0.9;
  std::string schedule = "linear";
  int64_t warmup_steps = 0;
  double warmup_ratio = 0, final_ratio = 0;

  void visit(Fields& v);
};

/// [checkpoint]
struct CheckpointConfig {
  int64_t every = 100, keep = 2;
  bool best = false;

  void visit(Fields& v) {
    v("every", every, at_least(0), "steps between checkpoints; 0: only at the end and when stopped", OnResume::free);
    v("keep", keep, at_least(1), "newest checkpoints that are kept", OnResume::free);
    v("best", best, anything(), "also keep the checkpoint with the lowest evaluation loss", OnResume::free);
  }
};

/// [evaluate]
struct EvaluateConfig {
  int64_t every = 0, rows = 0;

  void visit(Fields& v) {
    v("every", every, at_least(0), "steps between evaluations; 0: only before step 1 and at the end", OnResume::free);
    v("rows", rows, at_least(0), "evaluate on the first rows only; 0: all", OnResume::free);
  }
};

/// [run]
struct RunConfig {
  std::filesystem::path dir;
  std::string resume = "auto", device = "auto", backend, target = "auto";
  // Not part of what a run computes: results do not depend on it, nor on device and backend by more than their
  // rounding.
  int64_t threads = 0;

  void visit(Fields& v) {
    v("dir", dir, path_as_typed(), "the run's folder; empty: runs/<recipe name> in the working directory",
      OnResume::free);
    v("resume", resume, anything(),
      "auto: go on from the folder's checkpoint; never: take the next free folder; a path: start from that checkpoint file",
      OnResume::free);
    v("device", device, one_of(device_choices()), device_help(), OnResume::free);
    v("backend", backend, one_of({"", "reference", "cpu"}),
      "kernel table; empty: the device's own; reference: plain loops, the truth", OnResume::free);
    v("target", target, one_of(cpu_target_choices()),
      "instructions of the cpu kernels; auto: the best of this machine; all give the same bits", OnResume::free);
    v("threads", threads, in_range(0, 1024),
      "threads a rank; 0: cores of the affinity mask shared by the ranks of the node", OnResume::free);
  }
};

/// [log]
struct LogConfig {
  int64_t every = 10;
  std::string progress = "auto";

  void visit(Fields& v) {
    v("every", every, at_least(1), "steps between progress lines (metrics.jsonl has every step)", OnResume::free);
    v("progress", progress, one_of({"auto", "live", "plain", "none"}),
      "live: one updating line; plain: lines; auto: live on a terminal without a launcher", OnResume::free);
  }
};

/// [export]: what the run writes at its end.
struct ExportConfig {
  bool native = true, merged = false, peft = false;

  void visit(Fields& v) {
    v("native", native, anything(), "adapter runs: the adapter as it was trained, into adapter/", OnResume::free);
    v("merged", merged, anything(),
      "the model with its deltas merged, as a Hugging Face folder, into model/ (full training always writes it)",
      OnResume::free);
    v("peft", peft, anything(), "adapter runs: the assembled adapter in PEFT's format, into peft/", OnResume::free);
  }
};

}  // namespace tessera

#pragma once
// An evaluation metric: the sums that it keeps, how a scored batch adds to them, and the figures that it gives. One
// file a metric, or a group that shares its sums; registry.cpp lists them. Everything else follows: sums over ranks,
// checkpoints, metrics.jsonl, the report, what a run says of itself.

#include <string_view>
#include <vector>

#include "data/packed_dataset.h"
#include "score/loss_sums.h"

namespace tessera {

/// A document of a batch, or a piece of one.
struct ScoredDocument {
  const TokenRange& range;
  size_t begin, end;  // its scored rows, as numbers of ScoredBatch's entries
  /// Whether its tokens count. Of an example's choices only the right one does, so that figures of tokens and
  /// completions are what they would be on the same data as prompts and completions.
  bool counts;
};

/// What a metric reads: a batch and what the forward pass says of its scored rows.
/// All but the documents have an entry a scored row.
struct ScoredBatch {
  const PackedBatch& batch;
  std::span<const int32_t> rows, labels;
  std::span<const double> nll;    // negative log-likelihood of the label, nats
  std::span<const int32_t> best;  // arg max of the logits
  std::vector<ScoredDocument> documents;
};

enum class SumKind { number, count };
struct SumSpec {
  std::string_view name;  // in checkpoints and figures.json; no two metrics share one
  SumKind kind;
};

/// How far a figure is told; each goes where those before it go, too.
enum class Told {
  evaluations,  // metrics.jsonl's line of an evaluation, and its text
  results,      // the line of job=evaluate, the "done" line (with "eval_" before its name)
  outcome,      // what a run says at its end, before and after
};

/// How a sum and the metric's count make a figure.
enum class Form {
  share,     // sum / count, told in percent
  mean,      // sum / count
  exp_mean,  // e^(sum / count)
};

struct FigureSpec {
  std::string_view key, words;  // for programs, and for readers: "exact_match", "completions right"
  std::string_view sum;
  Form form;
  Told told;
};

/// What a metric's figures are means over: they exist when it is above 0.
struct CountSpec {
  std::string_view sum, key;
  Told told;  // from `results` on, readers are told "25.0 % of 8" instead of "25.0 %"
};

struct Metric {
  std::string_view name;
  std::vector<SumSpec> sums;
  CountSpec count;
  std::vector<FigureSpec> figures;
  /// Called once a batch, in the order of the rows; the sums may hold earlier batches already and go on from there,
  /// number by number, so that batches do not show in their bits.
  void (*add)(const ScoredBatch&, LossSums&);
};

/// In the order in which files and readers are told of them.
const std::vector<Metric>& metrics();
/// The sums of all metrics, in their order.
const std::vector<SumSpec>& sum_specs();

}  // namespace tessera

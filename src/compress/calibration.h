#pragma once
// Calibration: the rows of data.train that blocks are compared on and losses of cut models are measured on. They are
// the first of the shuffled order; gates are trained on those behind them.

#include <functional>

#include "compress/stages.h"

namespace tessera {

/// Tells the perplexity of the calibration rows at a point that the model passes, and that it is of these.
void say_perplexity(const StageInputs&, const std::string& point, double perplexity);

/// @throws UserError when data.train has fewer rows than fold.calibration_rows
void require_calibration_rows(const StageInputs&);
/// @param rows   of data.train
/// @param where  place of the recipe's [fold]
void require_calibration_rows(int64_t rows, const FoldConfig&, const KeyPlaces& where);

/// What of_row gives of each calibration row, summed in the order of the rows, and behind it the number of tokens: the
/// same bits for any number of ranks. A pass takes one row.
/// @param doing   what is left when a stop is asked for between two rows
/// @param of_row  as many values for every row
/// @throws UserError as require_calibration_rows; Stopped on every rank
std::vector<double> sums_over_calibration_rows(const StageInputs&, const std::string& doing,
                                               const std::function<std::vector<double>(const PackedBatch&)>& of_row);

/// This rank's part of so many rows from a place of the shuffled order on, a pass at a time.
/// @param f  returns whether to go on
void for_each_pass(const StageInputs&, int64_t first, int64_t rows, const std::function<bool(const PackedBatch&)>& f);

/// The same of all of them, whoever asks.
void for_each_pass_of_all(const StageInputs&, int64_t first, int64_t rows,
                          const std::function<void(const PackedBatch&)>& f);

/// The tokens of a batch's documents, in order: padding left out.
std::vector<int32_t> document_tokens(const PackedBatch&);

/// Mean cross-entropy of the calibration rows under a model, with these gates; the same on every rank.
/// @throws Stopped on every rank when a stop was asked for between two batches
double calibration_loss(const StageInputs&, Model&, const BlockGates&);
/// Bytes of the arena that a pass of it takes, with gates of every kind.
int64_t plan_calibration_bytes(const StageSizes&, Model&);

}  // namespace tessera

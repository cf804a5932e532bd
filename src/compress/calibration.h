#pragma once
// Calibration: the rows of data.train that blocks are compared on and losses of cut models are measured on. They are
// the first of the shuffled order; gates are trained on those behind them.

#include "compress/stages.h"

namespace tessera {

/// @throws UserError when data.train has fewer rows than fold.calibration_rows
void require_calibration_rows(const StageInputs&);

/// This rank's calibration rows, as places in the shuffled order.
RowShare calibration_share(const StageInputs&);

/// The tokens of a batch's documents, in order: padding left out.
std::vector<int32_t> document_tokens(const PackedBatch&);

/// Mean cross-entropy of the calibration rows under a model, with these gates; the same on every rank.
/// @throws Stopped on every rank when a stop was asked for between two batches
double calibration_loss(const StageInputs&, Model&, const BlockGates&);
/// Bytes of the arena that a pass of it takes, with gates of every kind.
int64_t plan_calibration_bytes(const StageSizes&, Model&);

}  // namespace tessera

#pragma once
// The folded model that is cured: what of it is trained, and how it lies beside its teacher.

#include "compress/folded_model.h"

namespace tessera {

/// Settings of a folded model that is trained as fold.cure says:
///   adapter  norms, biases, gains and deltas of all layers, and the adapter of [adapter], where it names one, whose
///            slots become the model's own (fold.cure.*); what groups share, embeddings and head are frozen
///   full     every stored number but what train.freeze names, in f32
/// What is frozen and lies in the original's file is read there.
/// @param making  plan and starts
Model::Settings student_settings(Model& original, FoldMaking making, const FoldConfig&, const TrainConfig&,
                                 const CureInputs&);

/// The student of stage "share"'s model, as that left it. @throws UserError for files that were altered
std::unique_ptr<Model> student_of(const StageInputs&);

/// The student of that plan laid out, for plans of memory.
std::unique_ptr<Model> counted_student(const StageSizes&, const FoldPlan&);

}  // namespace tessera

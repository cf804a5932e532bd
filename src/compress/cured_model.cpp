#include "compress/cured_model.h"

#include "compress/folded_folder.h"
#include "model/fold/plan_file.h"
#include "model/sharing/fold_starts.h"
#include "model/sharing_io.h"

namespace tessera {

Model::Settings student_settings(Model& original, FoldMaking making, const FoldConfig& fold, const TrainConfig& train,
                                 const CureInputs& cure) {
  const bool is_full = fold.cure == "full";
  making.training = is_full ? FoldTraining::everything : FoldTraining::own;
  if (!is_full && cure.adapter->method != "none") making.cure = *cure.adapter;
  Model::Settings settings = folded_settings(original, std::move(making), static_cast<uint64_t>(train.seed));
  settings.train_base = settings.gradients = true;
  if (is_full) settings.freeze = train.freeze;
  settings.where_freeze = cure.where_freeze;
  settings.where_sharing = cure.where_adapter;  // faults of the adapter are what can be found here
  return settings;
}

std::unique_ptr<Model> student_of(const StageInputs& in) {
  const std::filesystem::path folder = folded_folder(in.folder, "shared");
  FoldMaking making{.plan = read_fold_plan(folder / "fold_plan.json"), .state = {}};
  const bool has_file = in.model.source() != nullptr;
  if (has_file) {
    const auto saved = std::make_shared<const SavedSharing>(folder, "fold", folder.string());
    making.starts = starts_beside_base({saved, &saved->tensors()}, making.plan, in.model.source().get());
  }
  Model::Settings settings = student_settings(in.model, std::move(making), in.fold, in.train, in.cure);
  // An original that was drawn lies in no file that both could read.
  if (!has_file) settings.sharing.load = folder;
  return std::make_unique<Model>(settings);
}

std::unique_ptr<Model> counted_student(const StageSizes& sizes, const FoldPlan& plan) {
  Model::Settings settings =
      student_settings(sizes.model, counted_making(sizes, plan), sizes.fold, sizes.train, sizes.cure);
  settings.memory = Memory::counted;
  return std::make_unique<Model>(settings);
}

}  // namespace tessera

#pragma once
// What the stage cure has of a training: sections of the recipe, held-out rows, the run's record.

#include "core/key_places.h"

namespace tessera {

class PackedDataset;
class Reporter;
class RunFolder;
struct AdapterConfig;
struct TrainerConfig;

struct CureInputs {
  const TrainerConfig* trainer = nullptr;
  const AdapterConfig* adapter = nullptr;
  KeyPlaces where_adapter{};
  std::string where_freeze = "train.freeze";
  Reporter* report = nullptr;           // of plans: none
  const RunFolder* folder = nullptr;    // rank 0's
  const PackedDataset* eval = nullptr;  // no evaluation
};

}  // namespace tessera

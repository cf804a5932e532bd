#include "compress/folded_model.h"

namespace tessera {

Model::Settings folded_settings(Model& original, FoldMaking making, uint64_t seed) {
  Model::Settings settings;
  settings.model = original.options();
  settings.sharing.method = "fold";
  settings.sharing.making = std::make_shared<const FoldMaking>(std::move(making));
  settings.gradients = false;
  settings.max_position = original.decoder().max_position();
  settings.seed = seed;
  settings.where_sharing = "fold";
  settings.parameters = settings.activations = original.decoder().activations();
  settings.check_seal = false;  // the original's has been
  settings.device = original.pool().device();
  settings.source = original.source();
  return settings;
}

}  // namespace tessera

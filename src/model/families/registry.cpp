// The families of models.

#include "model/families/families.h"

namespace tessera {

const std::vector<ModelFamily>& model_families() {
  static const std::vector<ModelFamily> families = {llama_family()};
  return families;
}

}  // namespace tessera

// The families of models. Each is made in its own file; what they have in common when they read config.json and name
// their weights is in config_keys.h, decoder_config.h and spec_list.h.

#include "model/model_config.h"

namespace tessera {

ModelFamily llama_family();
ModelFamily mistral_family();
ModelFamily qwen2_family();
ModelFamily qwen3_family();
ModelFamily smollm3_family();

const std::vector<ModelFamily>& model_families() {
  static const std::vector<ModelFamily> families = {
      llama_family(), mistral_family(), qwen2_family(), qwen3_family(), smollm3_family(),
  };
  return families;
}

}  // namespace tessera

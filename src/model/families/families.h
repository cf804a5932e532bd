#pragma once
// One function a family: adding one is a file here and a line in registry.cpp. What families have in common when they
// read config.json and name their weights is in config_keys.h, decoder_config.h and spec_list.h.

#include "model/model_config.h"

namespace tessera {

ModelFamily llama_family();

}  // namespace tessera

#pragma once
// One function a family: adding one is a file here and a line in model_config.cpp.

#include "model/model_config.h"

namespace tessera {

ModelFamily llama_family();

}  // namespace tessera

#pragma once
// Which layers of a model attend in a sliding window.

#include <functional>

#include "model/model_config.h"

namespace tessera {

/// The list "layer_types" of config.json, or where there is none the family's own rule, which is then written into
/// ModelConfig::source as such a list: a model with fewer of these layers is still told right.
/// @param window  keys that a layer of the type "sliding_attention" sees; 0: the config has no windows
/// @param slides  the family's rule
/// @throws UserError for another type, another number of layers, or a sliding layer without a window
void read_layer_types(ModelConfig&, const std::string& where, int64_t window,
                      const std::function<bool(int64_t layer)>& slides);

}  // namespace tessera

#include "model/families/layer_types.h"

#include <algorithm>

#include "core/error.h"

namespace tessera {
namespace {

constexpr const char* kFull = "full_attention";
constexpr const char* kSliding = "sliding_attention";

std::vector<bool> listed(const Json& list, int64_t layers, const std::string& where) {
  if (!list.is_array() || static_cast<int64_t>(list.items().size()) != layers)
    throw UserError(
        where, fmt::format("\"layer_types\" is {}, expected a list of {}, the number of layers", list.dump(), layers));
  std::vector<bool> slides;
  for (const Json& type : list.items()) {
    const std::string name = type.is_string() ? type.as_string() : "";
    if (name != kFull && name != kSliding)
      throw UserError(where, fmt::format("\"layer_types\" holds {}, which is not supported", type.dump()),
                      fmt::format("supported: \"{}\", \"{}\"", kFull, kSliding));
    slides.push_back(name == kSliding);
  }
  return slides;
}

}  // namespace

void read_layer_types(ModelConfig& config, const std::string& where, int64_t window,
                      const std::function<bool(int64_t layer)>& rule) {
  const int64_t layers = config.num_hidden_layers;
  std::vector<bool> slides;
  if (const Json* list = config.source.find("layer_types")) {
    slides = listed(*list, layers, where);
  } else {
    for (int64_t layer = 0; layer < layers; ++layer) slides.push_back(rule(layer));
  }
  if (std::ranges::none_of(slides, std::identity{})) return;
  if (window == 0)
    throw UserError(where, "\"layer_types\" has layers of the type \"sliding_attention\", and there is no window",
                    "give \"sliding_window\", and \"use_sliding_window\": true where the family has that key");
  Json list = Json::array();
  for (const bool slide : slides) {
    config.attention.push_back({.window = slide ? window : 0});
    list.push_back(slide ? kSliding : kFull);
  }
  config.source.set("layer_types", list);
}

}  // namespace tessera

#include "model/config_reasons.h"

#include <algorithm>

#include "core/error.h"

namespace tessera {
namespace {

struct SizeKey {
  const char* key;
  int64_t ModelConfig::*value;
};
constexpr SizeKey kSizes[] = {
    {"vocab_size", &ModelConfig::vocab_size},
    {"hidden_size", &ModelConfig::hidden_size},
    {"intermediate_size", &ModelConfig::intermediate_size},
    {"num_attention_heads", &ModelConfig::num_attention_heads},
    {"num_key_value_heads", &ModelConfig::num_key_value_heads},
    {"head_dim", &ModelConfig::head_dim},
};

struct FlagKey {
  const char* key;
  bool ModelConfig::*value;
};
constexpr FlagKey kFlags[] = {{"attention_bias", &ModelConfig::attention_bias}, {"mlp_bias", &ModelConfig::mlp_bias}};

constexpr const char* kTie = "tie_word_embeddings";

}  // namespace

ConfigReasons::Shapes ConfigReasons::shapes_of(const std::vector<WeightSpec>& specs) {
  Shapes shapes;
  for (const WeightSpec& spec : specs) shapes.emplace(spec.name, spec.shape);
  return shapes;
}

std::string ConfigReasons::flag_text(const char* key, bool value) const {
  return fmt::format("{} is {}{}", key, value, config_.source.find(key) ? "" : " by default");
}

ConfigReasons::ConfigReasons(const ModelConfig& config) : config_(config) {
  const std::vector<WeightSpec> specs = weight_specs(config);
  own_ = shapes_of(specs);
  for (const WeightSpec& spec : specs)
    if (spec.part == Part::head) head_ = spec.name;
  for (const SizeKey& size : kSizes) {
    ModelConfig other = config;
    other.*size.value += 1;
    with_other_size_.emplace_back(
        fmt::format("{} ({}{})", size.key, config.*size.value, config.source.find(size.key) ? "" : ", by default"),
        shapes_of(weight_specs(other)));
  }
  for (const FlagKey& flag : kFlags) {
    ModelConfig other = config;
    other.*flag.value = !(config.*flag.value);
    with_other_flag_.emplace_back(flag_text(flag.key, config.*flag.value), shapes_of(weight_specs(other)));
  }
  for (const ModelFamily& family : model_families())
    if (family.name != config.family) of_other_families_.emplace_back(family.name, shapes_of(family.specs(config)));
}

std::string ConfigReasons::of_size(const std::string& weight, int axis) const {
  std::string text;
  int64_t product = 1;
  for (size_t i = 0; i < with_other_size_.size(); ++i) {
    const auto& [key, shapes] = with_other_size_[i];
    if (shapes.at(weight)[axis] == own_.at(weight)[axis]) continue;
    text += (text.empty() ? "" : " x ") + key;
    product *= config_.*kSizes[i].value;
  }
  // A size may be made in another way, such as a sum: then it is given, beside the keys.
  if (const int64_t size = own_.at(weight)[axis]; product != size) text = fmt::format("{} of {}", size, text);
  return text;
}

std::string ConfigReasons::of_presence(const std::string& weight) const {
  const bool is_here = own_.count(weight) > 0;
  std::string text;
  for (const auto& [flag, shapes] : with_other_flag_)
    if ((shapes.count(weight) > 0) != is_here) text = flag;
  if (weight == head_) text = flag_text(kTie, config_.tie_word_embeddings);
  const auto have_it = [&](const auto& family) { return family.second.count(weight) > 0; };
  if (is_here && text.empty() && !std::ranges::all_of(of_other_families_, have_it))
    return fmt::format("models of the family \"{}\" have it", config_.family);
  if (is_here) return text;
  std::string families;
  for (const auto& [family, shapes] : of_other_families_)
    if (shapes.count(weight)) families += fmt::format("{}\"{}\"", families.empty() ? "" : ", ", family);
  if (!families.empty()) text += fmt::format("{}models of the family {} have it", text.empty() ? "" : "; ", families);
  return text;
}

}  // namespace tessera

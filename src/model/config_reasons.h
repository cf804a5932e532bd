#pragma once
// Which keys of config.json make a weight what it is, for messages. Found by trying: a family's list of weights is
// made again with one number changed, so that no family has to say it.

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "model/model_config.h"

namespace tessera {

class ConfigReasons {
 public:
  explicit ConfigReasons(const ModelConfig&);

  /// The keys that a size of a weight is made of, with their values: "num_key_value_heads (2) x head_dim (64)".
  std::string of_size(const std::string& weight, int axis) const;
  /// Why the model has a weight, or does without it: "attention_bias is true", and which families have one of that name
  /// where not all do; may be empty.
  std::string of_presence(const std::string& weight) const;

 private:
  using Shapes = std::map<std::string, Shape>;  // by the weights' names
  static Shapes shapes_of(const std::vector<WeightSpec>&);
  std::string flag_text(const char* key, bool value) const;

  const ModelConfig& config_;
  Shapes own_;
  std::string head_;
  std::vector<std::pair<std::string, Shapes>> with_other_size_;         // text of a key -> the weights it leads to
  std::vector<std::pair<std::string, Shapes>> with_other_flag_;         // the same, flipped
  std::vector<std::pair<std::string_view, Shapes>> of_other_families_;  // name -> its weights by these numbers
};

}  // namespace tessera

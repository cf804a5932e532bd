#pragma once
// What the files of a base model call its tensors, and what they are called here. The same decoder is stored under
// several prefixes: by itself, as the bare model without its head, or as the language part of a larger one.

#include <span>
#include <string>

#include "io/safetensors.h"
#include "model/weights.h"

namespace tessera {

/// One prefix for all tensors but the head. Names without it are the same on both sides.
class TensorNames {
 public:
  /// By the name that the embedding has in the files; where a tied model stores its matrix as the head's, by that of
  /// the last norm.
  ///   prefix of "embed_tokens.weight"   names of the head
  ///   "model."                          "lm_head.weight"
  ///   none                              "lm_head.weight"
  ///   "language_model.model."           "language_model.lm_head.weight", "lm_head.weight"
  ///   "model.language_model."           the same
  ///   "language_model."                 the same
  /// The first line is that of the specs: a family whose own prefix is another has that in place of "model.".
  /// @throws UserError naming two tensors with different prefixes, or one whose prefix is none of these
  TensorNames(const SafetensorsReader&, std::span<const WeightSpec>);

  /// The name in the files of a tensor that the specs call `own`.
  std::string in_files(const std::string& own) const;
  /// The name in the specs of a tensor that the files call `stored`.
  std::string own(const std::string& stored) const;

 private:
  std::string prefix_, own_prefix_, head_, own_head_;
};

/// From now on the reader has its tensors under the specs' names.
void take_own_names(SafetensorsReader&, std::span<const WeightSpec>, const TensorNames&);

}  // namespace tessera

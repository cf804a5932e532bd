#pragma once
// Fields take values: of the right kind, within their rule.

#include "core/fields.h"
#include "core/overrides.h"

namespace tessera {

/// Where a value was given.
struct GivenAt {
  std::string key;               // "train.steps"
  std::string place;             // "a.toml:3:1"
  std::filesystem::path folder;  // that its paths start from
};

/// Sets the field. @return what is wrong with the value, for the user to read; empty when it was taken
std::string set_field(const Field&, const TomlValue&, const GivenAt&);

/// What a value on the command line is for its field: a text may be anything that was typed, and a list may be bare:
/// a,b or [a, b].
TomlValue fitted_override(const FieldTarget&, const TomlValue& value, const std::string& typed);

}  // namespace tessera

#pragma once
// "section.key=value" of the command line, "a.b.key=value" in a section within a section, "a.b[1].key=value" in the
// second of the tables [[a.b]]. A value is TOML when it parses as such, otherwise text.

#include "core/toml.h"

namespace tessera {

/// The same keys twice: a shell eats quotes, so what a value is depends on what its field wants.
struct Overrides {
  TomlTable values;  // as TOML
  TomlTable typed;   // texts, as typed
};

/// train={steps=3} is what [train] steps = 3 is.
/// @throws UserError when a text is no override
Overrides read_overrides(const std::vector<std::string>& texts);

}  // namespace tessera

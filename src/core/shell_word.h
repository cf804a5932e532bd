#pragma once
// Commands in messages, which can be typed as they stand.

#include <string>

namespace tessera {

/// An argument as a shell takes it: quoted where it must be.
std::string shell_word(const std::string& text);

}  // namespace tessera

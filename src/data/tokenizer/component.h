#pragma once
// Reading the {"type": ...} objects of tokenizer.json.

#include <cstdint>
#include <string>
#include <string_view>

#include "core/json.h"
#include "data/tokenizer/regex.h"

namespace tessera::tokenizer {

const std::string& type_of(const Json& component);

[[noreturn]] void not_supported(std::string_view part, std::string_view type, std::string_view supported);

/// A member that may be absent.
bool flag_or(const Json& component, std::string_view key, bool otherwise);
std::string text_or(const Json& component, std::string_view key, const std::string& otherwise);

/// {"String": text} or {"Regex": pattern}, or a bare string, which is taken literally.
Regex read_pattern(const Json& pattern);

}  // namespace tessera::tokenizer

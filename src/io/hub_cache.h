#pragma once
// Models that were downloaded from the Hugging Face hub, where its own programs keep them.

#include <filesystem>
#include <string>

namespace tessera {

/// $HF_HUB_CACHE; else hub in $HF_HOME, in $XDG_CACHE_HOME/huggingface, in ~/.cache/huggingface.
std::filesystem::path hub_cache();

/// "org/name": two names of letters, digits, "-", "_" and ".", neither of which is "." or "..".
bool is_hub_name(const std::string& text);

/// The snapshot of a model that refs/main names, or its only one; empty where there is none.
/// @param name  anything; what is no name of the hub has none
std::filesystem::path cached_model(const std::string& name);

/// What fetches it, as a line to type.
std::string download_command(const std::string& name);

}  // namespace tessera

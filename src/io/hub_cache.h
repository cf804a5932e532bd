#pragma once
// Models that were downloaded from the Hugging Face hub, where its own programs keep them.

#include <filesystem>
#include <string>
#include <vector>

namespace tessera {

/// $HF_HUB_CACHE, else $HUGGINGFACE_HUB_CACHE; else hub in $HF_HOME, in $XDG_CACHE_HOME/huggingface, in
/// ~/.cache/huggingface. A "~" in front is the home folder, also where no shell has seen it.
std::filesystem::path hub_cache();

/// "org/name": two names of letters, digits, "-", "_" and ".", neither of which is "." or "..".
bool is_hub_name(const std::string& text);

/// The snapshot of a model that refs/main names, or its only one; empty where there is none.
/// @param name  anything; what is no name of the hub has none
std::filesystem::path cached_model(const std::string& name);

/// Why the cache does not have a model, and what fetches it, as text for a hint.
std::string not_in_cache(const std::string& name);

/// "org/name" of a folder that is a snapshot in a cache; empty for other folders.
std::string hub_name_of(const std::filesystem::path& folder);

/// What a download that was broken off left of its files (*.incomplete): of a snapshot beside the cache's blobs, of
/// another folder where `hf download --local-dir` keeps them.
std::vector<std::filesystem::path> unfinished_downloads(const std::filesystem::path& folder);

/// What fetches it, as a line to type.
std::string download_command(const std::string& name);
/// The same of a folder that holds a download, which is then whole; without a name, what to do in words.
std::string download_again(const std::filesystem::path& folder);

}  // namespace tessera

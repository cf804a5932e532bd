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

/// "org/name" of a page of the hub ("https://huggingface.co/org/name/tree/main"); empty for other text.
std::string hub_name_in_url(const std::string& text);

/// Of a cache's folder "models--org--name" the snapshot that refs/main names; without that file its only one. Empty
/// where there is none, also where refs/main names one that is not there.
std::filesystem::path snapshot_in(const std::filesystem::path& model);

/// The same by name, in hub_cache().
/// @param name  anything; what is no name of the hub has none
std::filesystem::path cached_model(const std::string& name);

/// Why the cache does not have a model, and what fetches it, as text for a hint. A model that is there and has nearly
/// this name is named.
std::string not_in_cache(const std::string& name);

/// "org/name" of a folder that is a snapshot in a cache; empty for other folders.
std::string hub_name_of(const std::filesystem::path& folder);

/// The commit of such a folder; empty for other folders.
std::string hub_revision_of(const std::filesystem::path& folder);

/// What people call a model: "org/name (0123abc)" of a snapshot, else the folder's name.
std::string title_of_model(const std::filesystem::path& folder);

/// Of a folder "models--org--name" in a cache, or of one in it such as "snapshots": what to say in its place, as text
/// for a hint. Empty for other folders.
std::string way_into_cache_folder(const std::filesystem::path& folder);

/// What a download that was broken off left of its files (*.incomplete): of a snapshot beside the cache's blobs, of
/// another folder where `hf download --local-dir` keeps them.
std::vector<std::filesystem::path> unfinished_downloads(const std::filesystem::path& folder);

/// What fetches it, as a line to type.
std::string download_command(const std::string& name);
/// The same of a folder that holds a download, which is then whole; without a name, what to do in words.
std::string download_again(const std::filesystem::path& folder);

}  // namespace tessera

#pragma once
// Links of the file system that lead nowhere, as in a cache of models that was pruned or copied without its blobs.

#include <filesystem>

namespace tessera {

/// @throws UserError naming a link that cannot be followed, its target and how to mend it. What is no link, or nothing
/// at all, is left to who reads it.
void require_sound_link(const std::filesystem::path&);

}  // namespace tessera

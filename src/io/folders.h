#pragma once
// Whole folders: written aside and put in place.

#include <filesystem>
#include <functional>
#include <string>

namespace tessera {

/// Whether a file of that name in a folder that is about to be replaced was written by whoever replaces it.
using IsOurs = std::function<bool(const std::string& name)>;

/// Writes a folder whole or not at all: `write(temporary)` into a new folder beside it, which then takes its place. Of
/// what it held before, ours goes, temporaries of killed processes too, and the rest stays. A link to a folder stays
/// one. Readers see the old folder or the new one, but for an instant on file systems that cannot exchange two names.
/// @throws UserError naming the folder when it cannot be written;
///   errors of `write` about the temporary name the folder too
void replace_folder(const std::filesystem::path& folder, const IsOurs&,
                    const std::function<void(const std::filesystem::path& temporary)>& write);

/// @throws UserError when the folder holds weights, an index of weights or an adapter that are not ours:
///   readers take those first
void refuse_foreign_weights(const std::filesystem::path& folder, const IsOurs&);

}  // namespace tessera

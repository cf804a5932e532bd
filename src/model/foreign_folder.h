#pragma once
// What stands in model.path and is a model that another program wrote in a form that is not read: what it is, and how
// to convert it. Also folders of which a part did not come along: links that lead nowhere, downloads broken off.

#include <filesystem>
#include <string>

namespace tessera {

/// What is read of model.path: all of it, or config.json alone where weights are drawn.
enum class ModelPart { config, weights };

/// A file in place of a folder: a GGUF file, or any other. A bare config.json will do where weights are drawn.
/// @param where  place of model.path in the recipe
/// @throws UserError
void refuse_foreign_file(const std::filesystem::path& file, ModelPart, const std::string& where);

/// A folder without what is read of it, or with weights that are quantised. Folders of this program's own runs are
/// told by refuse_other_folder.
/// @throws UserError saying what it is instead
void refuse_foreign_folder(const std::filesystem::path& folder, ModelPart, const std::string& where);

/// How to mend a folder that lacks a file: where a download was broken off, how to go on with it. May be empty.
std::string hint_of_missing_file(const std::filesystem::path& folder);

}  // namespace tessera

#pragma once
// How to make a folder that is read of one that is not, in lines that can be typed as they stand.

#include <filesystem>
#include <string>

namespace tessera {

/// Three lines of Python that write model.safetensors and the tokenizer's files to a new folder.
/// @param packages  what they need beside transformers; may be empty
/// @param imports   names of transformers beside those of the model and its tokenizer; may be empty
/// @param arguments  further arguments of from_pretrained, ", key=value"; may be empty
/// @param then      what is called on the model before it is saved: ".dequantize()"; may be empty
std::string python_hint(const std::filesystem::path& folder, const std::string& packages = {},
                        const std::string& imports = {}, const std::string& arguments = {},
                        const std::string& then = {});

/// Whether scripts/import_gguf reads a family, by its model_type or its name in GGUF files; and those that it reads, as
/// text.
bool can_import_family(const std::string& family);
std::string families_imported();

/// The command that makes a folder of a GGUF file; of one of several parts, how to join them first; of a family that
/// scripts/import_gguf does not read, that.
std::string gguf_hint(const std::filesystem::path& file);

/// The same for Flax's files, of which transformers 4 was the last to read any.
std::string flax_hint(const std::filesystem::path& folder);

/// A path as a string of Python.
std::string python_text(const std::filesystem::path&);

/// Where the commands of these hints write to: beside the working directory's other folders, by the model's name.
std::string converted_folder(const std::filesystem::path& model);

}  // namespace tessera

#include "model/foreign_folder.h"

#include <algorithm>
#include <array>
#include <vector>

#include "core/error.h"
#include "io/file_descriptor.h"
#include "io/hub_cache.h"
#include "io/json_file.h"
#include "io/links.h"
#include "model/convert_hint.h"
#include "model/quantised_folder.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr const char *kConfig = "config.json", *kWeights = "model.safetensors",
                     *kIndex = "model.safetensors.index.json";
constexpr std::string_view kGguf = ".gguf";

constexpr const char* kTakeOriginal =
    "its weights are not read: take the model that it was made of, in Hugging Face's form (config.json, "
    "model.safetensors, tokenizer.json)";

/// Files of one program, and what to do about them.
struct ForeignKind {
  std::string_view begin, end;  // of the files' names
  const char* what;
  bool needs_config;  // the hint's command reads config.json
  std::string (*hint)(const fs::path& folder, const std::string& file);
};

std::string take_original(const fs::path&, const std::string&) { return kTakeOriginal; }
std::string by_gguf(const fs::path& folder, const std::string& file) { return gguf_hint(folder / file); }
std::string by_python(const fs::path& folder, const std::string&) { return python_hint(folder); }
std::string by_flax(const fs::path& folder, const std::string&) { return flax_hint(folder); }
std::string of_quantised(const fs::path& folder, const std::string&) { return quantised_hint(folder, ""); }

/// The first that a folder has counts: those that can be converted come first.
constexpr ForeignKind kKinds[] = {
    {"pytorch_model", ".bin", "weights in PyTorch's form", true, by_python},
    {"pytorch_model", ".bin.index.json", "weights in PyTorch's form", true, by_python},
    {"", kGguf, "a GGUF file", false, by_gguf},
    {"quantize_config", ".json", "weights quantised by GPTQ", false, of_quantised},
    {"quant_config", ".json", "weights quantised by AWQ", false, of_quantised},
    {"flax_model", ".msgpack", "weights in Flax's form", true, by_flax},
    {"consolidated", ".safetensors", "weights in Mistral's own form", false, take_original},
    {"consolidated", ".pth", "weights in Meta's own form", false, take_original},
    {"tf_model", ".h5", "weights in TensorFlow's form", false, take_original},
    {"", ".onnx", "a model in ONNX's form", false, take_original},
    {"openvino_model", "", "a model in OpenVINO's form", false, take_original},
    {"weights", ".npz", "weights in MLX's old form", false, take_original},
    {"", ".pth", "weights in PyTorch's form", false, take_original},
};

[[noreturn]] void refuse(const fs::path& folder, const std::string& where, const std::string& what,
                         const std::string& hint) {
  throw UserError(where, fmt::format("model.path \"{}\" {}", folder.string(), what), hint);
}

/// Sorted. @param fault  of a folder that cannot be listed
std::vector<std::string> names_in(const fs::path& folder, std::error_code& fault) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder, fault)) names.push_back(entry.path().filename().string());
  std::ranges::sort(names);
  return names;
}

/// Nothing is there, not even a link that leads nowhere. What is there and no file is told by who reads it.
bool is_missing(const fs::path& path) {
  std::error_code ignored;
  return fs::symlink_status(path, ignored).type() == fs::file_type::not_found;
}

/// By its name or its first bytes. Opened in any case: it may be a pointer of git-lfs, which nothing can import.
bool is_gguf(const fs::path& file) {
  std::array<char, 4> front{};
  FileDescriptor::open_to_read(file).read(std::as_writable_bytes(std::span(front)));
  return file.extension() == kGguf || std::string_view(front.data(), front.size()) == "GGUF";
}

/// Of the files that are read.
void refuse_broken_links(const fs::path& folder, const std::vector<std::string>& names, ModelPart part) {
  require_sound_link(folder / kConfig);
  if (part == ModelPart::config) return;
  for (const std::string& name : names)
    if (name == kIndex || name == kWeights || name == "generation_config.json" ||
        (name.starts_with("model-") && name.ends_with(".safetensors")))
      require_sound_link(folder / name);
}

/// The first file of a kind, also in the folder where exporters to ONNX put theirs.
std::string file_of_kind(const fs::path& folder, const std::vector<std::string>& names, const ForeignKind& kind) {
  const auto is_of_kind = [&](const std::string& name) {
    return name.starts_with(kind.begin) && name.ends_with(kind.end) && !name.starts_with("rng_state");
  };
  if (const auto found = std::ranges::find_if(names, is_of_kind); found != names.end()) return *found;
  if (kind.end != ".onnx") return "";
  std::error_code ignored;
  const std::vector<std::string> below = names_in(folder / "onnx", ignored);
  const auto found = std::ranges::find_if(below, is_of_kind);
  return found == below.end() ? "" : "onnx/" + *found;
}

void refuse_known_kinds(const fs::path& folder, const std::vector<std::string>& names, const std::string& lacking,
                        const std::string& where) {
  for (const ForeignKind& kind : kKinds) {
    const std::string file = file_of_kind(folder, names, kind);
    if (file.empty()) continue;
    const std::string first =
        kind.needs_config && is_missing(folder / kConfig) ? "put the model's config.json beside it, then\n" : "";
    refuse(folder, where, fmt::format("holds {} (\"{}\") and no {}", kind.what, file, lacking),
           first + kind.hint(folder, file));
  }
}

/// Other files that hold tensors: shards whose index did not come along, or a name of one's own.
std::string hint_of_tensor_files(const std::vector<std::string>& names) {
  const auto is_tensors = [](const std::string& name) { return name.ends_with(".safetensors"); };
  const auto found = std::ranges::find_if(names, is_tensors);
  if (found == names.end()) return "to draw its weights, set model.init = \"random\"";
  if (found->starts_with("model-")) return fmt::format("its shards (\"{}\") need their index, {}", *found, kIndex);
  return fmt::format("it holds \"{}\": if that is the model, call it {}", *found, kWeights);
}

}  // namespace

std::string hint_of_missing_file(const fs::path& folder) {
  const size_t parts = unfinished_downloads(folder).size();
  if (parts == 0 && hub_name_of(folder).empty()) return "";
  if (parts == 0) return "not all of it was downloaded: " + download_again(folder);
  return fmt::format("its download was broken off, {} file{} not finished: {}", parts, parts == 1 ? " is" : "s are",
                     download_again(folder));
}

void refuse_foreign_file(const fs::path& file, ModelPart part, const std::string& where) {
  if (is_gguf(file)) refuse(file, where, "is a GGUF file", gguf_hint(file));
  if (part == ModelPart::config) return;
  refuse(file, where, "is a file", "name the folder that holds config.json and the weights");
}

void refuse_foreign_folder(const fs::path& folder, ModelPart part, const std::string& where) {
  std::error_code fault;
  if (!fs::is_directory(folder, fault)) refuse(folder, where, "is neither a file nor a folder", "");
  const std::vector<std::string> names = names_in(folder, fault);
  if (const std::string way = way_into_cache_folder(folder); !way.empty() && is_missing(folder / kConfig))
    refuse(folder, where, fmt::format("holds no {}", kConfig), way);
  refuse_broken_links(folder, names, part);
  const bool has_config = !is_missing(folder / kConfig),
             has_weights = !is_missing(folder / kWeights) || !is_missing(folder / kIndex);
  if (has_config && part == ModelPart::weights)
    refuse_quantised_config(folder, read_configuration(folder / kConfig), where);
  if (has_config && (has_weights || part == ModelPart::config)) return;
  const std::string lacking = part == ModelPart::config ? kConfig : kWeights, broken_off = hint_of_missing_file(folder);
  if (fault) throw_file_error(folder, "its files cannot be listed", fault.value());
  if (names.empty()) refuse(folder, where, "is an empty folder", broken_off);
  if (!has_weights && unfinished_downloads(folder).empty()) refuse_known_kinds(folder, names, lacking, where);
  if (!has_config)
    refuse(folder, where, fmt::format("holds no {}", kConfig),
           !broken_off.empty() ? broken_off : "name the folder of a model in Hugging Face's form");
  refuse(folder, where, fmt::format("holds neither {} nor {}", kWeights, kIndex),
         broken_off.empty() ? hint_of_tensor_files(names) : broken_off);
}

}  // namespace tessera

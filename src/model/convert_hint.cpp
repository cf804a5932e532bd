#include "model/convert_hint.h"

#include <array>
#include <cstring>
#include <span>

#include "core/error.h"
#include "core/json.h"
#include "core/shell_word.h"
#include "io/file_descriptor.h"
#include "io/hub_cache.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr const char *kGguf = ".gguf", *kConverted = "-converted";
constexpr std::string_view kImported = "llama";  // what scripts/import_gguf reads
constexpr std::string_view kOfPart = "-of-";     // "model-00001-of-00003.gguf"

/// "general.architecture", which writers put first; empty where something else is there.
///   "GGUF", version, tensors, keys | length, key | type, length, value
std::string architecture_of(const fs::path& file) {
  constexpr size_t kBegin = 24;  // 4 + 4 + 8 + 8 bytes
  constexpr std::string_view kKey = "general.architecture";
  constexpr uint32_t kText = 8;
  constexpr size_t kLonger = 64;  // than any name is
  std::array<char, kBegin + 8 + kKey.size() + 4 + 8 + kLonger> bytes{};
  FileDescriptor::open_to_read(file).read(std::as_writable_bytes(std::span(bytes)));
  const std::string_view all(bytes.data(), bytes.size());
  const auto number = [&](size_t at, auto value) {
    std::memcpy(&value, bytes.data() + at, sizeof(value));
    return value;
  };
  const size_t type = kBegin + 8 + kKey.size(), value = type + 4 + 8;
  const auto length = number(type + 4, uint64_t{});
  if (all.substr(kBegin + 8, kKey.size()) != kKey || number(type, uint32_t{}) != kText || length > kLonger) return "";
  return std::string(all.substr(value, static_cast<size_t>(length)));
}

}  // namespace

bool can_import_family(const std::string& family) { return family == kImported; }

std::string families_imported() { return fmt::format("the family \"{}\"", kImported); }

std::string python_text(const fs::path& path) { return Json(path.string()).dump(); }

std::string converted_folder(const fs::path& model) {
  const fs::path whole = fs::absolute(model / "").lexically_normal().parent_path();
  const std::string name = hub_name_of(model);  // a snapshot's own name is a hash
  if (!name.empty()) return name.substr(name.find('/') + 1) + kConverted;
  return (whole.extension() == kGguf ? whole.stem() : whole.filename()).string() + kConverted;
}

std::string python_hint(const fs::path& folder, const std::string& packages, const std::string& imports,
                        const std::string& arguments, const std::string& then) {
  const std::string from = python_text(folder), to = python_text(converted_folder(folder));
  return fmt::format(
      "convert it in Python (pip install torch transformers{}), and set model.path to {}:\n"
      "  from transformers import AutoModelForCausalLM, AutoTokenizer{}\n"
      "  AutoModelForCausalLM.from_pretrained({}, torch_dtype=\"auto\"{}){}.save_pretrained({})\n"
      "  AutoTokenizer.from_pretrained({}).save_pretrained({})",
      packages.empty() ? "" : " " + packages, to, imports.empty() ? "" : ", " + imports, from, arguments, then, to,
      from, to);
}

std::string gguf_hint(const fs::path& file) {
  if (const std::string found = architecture_of(file); !found.empty() && !can_import_family(found))
    return fmt::format(
        "it is of the family \"{}\", and scripts/import_gguf reads {}: take the model that it was made of, in Hugging "
        "Face's form",
        found, families_imported());
  const std::string stem = file.stem().string();
  const size_t part = stem.find(kOfPart);
  if (part == std::string::npos) {
    const std::string to = converted_folder(file);
    return fmt::format("import it, and set model.path to {}:\n  scripts/import_gguf {} {}", python_text(to),
                       shell_word(file.string()), shell_word(to));
  }
  const std::string to = stem.substr(0, stem.rfind('-', part - 1)) + kConverted, whole = to + kGguf;
  return fmt::format(
      "it is a part of several: join them with llama.cpp's llama-gguf-split, import the whole, and set model.path to {}:\n"
      "  llama-gguf-split --merge {} {}\n"
      "  scripts/import_gguf {} {}",
      python_text(to), shell_word(file.string()), shell_word(whole), shell_word(whole), shell_word(to));
}

std::string flax_hint(const fs::path& folder) {
  return fmt::format(
      "convert it in Python (pip install torch \"transformers<5\" flax), and set model.path to {}:\n"
      "  from transformers import AutoConfig, AutoModelForCausalLM\n"
      "  from transformers.modeling_flax_pytorch_utils import load_flax_checkpoint_in_pytorch_model as load\n"
      "  model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained({}))\n"
      "  load(model, {}).save_pretrained({})",
      python_text(converted_folder(folder)), python_text(folder), python_text(folder / "flax_model.msgpack"),
      python_text(converted_folder(folder)));
}

}  // namespace tessera

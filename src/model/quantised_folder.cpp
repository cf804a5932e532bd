#include "model/quantised_folder.h"

#include <algorithm>
#include <array>
#include <sstream>

#include "core/error.h"
#include "core/shell_word.h"
#include "io/files.h"
#include "io/hub_cache.h"
#include "io/json_file.h"
#include "model/convert_hint.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr const char *kBitsAndBytes = "bitsandbytes", *kMlx = "mlx";

/// What quantisers leave beside or in place of "….weight".
constexpr std::array<std::string_view, 10> kEndings = {
    ".qweight",          ".qzeros", ".g_idx",         ".weight_packed",    ".weight_scale",
    ".weight_scale_inv", ".SCB",    ".weight.absmax", ".weight.quant_map", ".scales"};

std::string readme_of(const fs::path& folder) {
  try {
    return read_text_file(folder / "README.md");
  } catch (const UserError&) {
    return "";  // it only completes a hint
  }
}

/// The model that a quantised one was made of, as its README.md says: "base_model: org/name", or a list of one.
std::string base_model_of(const fs::path& folder) {
  std::istringstream lines(readme_of(folder));
  bool is_next = false;
  for (std::string line; std::getline(lines, line);) {
    constexpr std::string_view kKey = "base_model:";
    if (!is_next && !line.starts_with(kKey)) continue;
    const size_t begin = line.find_first_not_of(" -\"'", is_next ? 0 : kKey.size());
    if (begin == std::string::npos) {
      if (is_next) break;
      is_next = true;
      continue;
    }
    const std::string name = line.substr(begin, line.find_last_not_of(" \"'\r") + 1 - begin);
    return is_hub_name(name) ? name : "";
  }
  return "";
}

/// model_type of its config.json; empty where there is none.
std::string family_of(const fs::path& folder) {
  try {
    const Json config = read_configuration(folder / "config.json");
    const Json* family = config.find("model_type");
    return family && family->is_string() ? family->as_string() : "";
  } catch (const UserError&) {
    return "";  // it only completes a hint
  }
}

/// Lines that turn it back, for those methods for which they are known to work.
std::string way_back(const fs::path& folder, const std::string& method) {
  if (method == kBitsAndBytes) return python_hint(folder, "accelerate bitsandbytes", "", "", ".dequantize()");
  if (method == "fp8")
    return python_hint(folder, "accelerate", "FineGrainedFP8Config",
                       ", quantization_config=FineGrainedFP8Config(dequantize=True)");
  if (method == "compressed-tensors")
    return python_hint(folder, "accelerate compressed-tensors", "CompressedTensorsConfig",
                       ", quantization_config=CompressedTensorsConfig(run_compressed=False)");
  const std::string to = converted_folder(folder);
  if (method == "gptq" && !can_import_family(family_of(folder))) return "";
  if (method == "gptq")
    return fmt::format(
        "convert it through GGUF with llama.cpp's convert_hf_to_gguf.py, and set model.path to {0} (scripts/import_gguf "
        "reads {4}):\n"
        "  python convert_hf_to_gguf.py {1} --outtype f32 --outfile {2}\n"
        "  scripts/import_gguf {2} {3}",
        python_text(to), shell_word(folder.string()), shell_word(to + ".gguf"), shell_word(to), families_imported());
  if (method != kMlx) return "";
  return fmt::format(
      "convert it (pip install mlx-lm), and set model.path to {}:\n"
      "  python -m mlx_lm convert --hf-path {} --mlx-path {} --dequantize",
      python_text(to), shell_word(folder.string()), shell_word(to));
}

std::string method_of(const Json& config) {
  const Json* quantised = config.find("quantization_config");
  // MLX writes its own key, and the other without saying whose it is.
  if (config.find("quantization")) return kMlx;
  if (!quantised) return "";
  if (const Json* method = quantised->find("quant_method"); method && method->is_string()) return method->as_string();
  for (const char* key : {"load_in_4bit", "load_in_8bit"})  // old files of bitsandbytes do not name it
    if (quantised->find(key)) return kBitsAndBytes;
  return "a method that it does not name";
}

}  // namespace

std::string quantised_hint(const fs::path& folder, const std::string& method) {
  const std::string base = base_model_of(folder), back = way_back(folder, method);
  std::string hint = "what quantising took away does not come back: take the model that it was made of";
  if (!base.empty()) hint += ": " + download_command(base);
  return back.empty() ? hint : hint + "\nor " + back;
}

void refuse_quantised_config(const fs::path& folder, const Json& config, const std::string& where) {
  const std::string method = method_of(config);
  if (method.empty()) return;
  throw UserError(
      where,
      fmt::format("the weights of model.path \"{}\" are quantised by {}, as config.json says; they are read "
                  "from f32, bf16 and f16",
                  folder.string(), method),
      quantised_hint(folder, method));
}

void refuse_quantised_tensors(const fs::path& folder, const SafetensorsReader& source) {
  for (const std::string& name : source.names()) {
    if (std::ranges::none_of(kEndings, [&](std::string_view ending) { return name.ends_with(ending); })) continue;
    throw UserError(
        source.file_of(name)->path().string(),
        fmt::format("the weights are quantised: there is a tensor \"{}\" {}", name, source.at(name).shape.text()),
        quantised_hint(folder, ""));
  }
}

}  // namespace tessera

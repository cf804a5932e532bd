#include "model/adapter_checks.h"

#include <algorithm>
#include <cstdlib>

#include "core/device/memory.h"
#include "core/error.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "model/base_files.h"
#include "model/native_mend.h"
#include "model/sharing/fold.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

/// How many layers a saved adapter changes; 0 where it does not tell.
int64_t layers_of(const Json& descriptor, const SafetensorsReader& tensors) {
  int64_t last = -1;
  if (const Json* types = descriptor.find("layers")) {
    for (const Json& type : types->items())
      for (const Json& layer : type.at("layers").items()) last = std::max(last, layer.as_integer());
    return last + 1;
  }
  static const std::string kLayers = ".layers.";
  for (const std::string& name : tensors.names())
    if (const size_t at = name.find(kLayers); at != std::string::npos)
      last = std::max<int64_t>(last, std::strtol(name.c_str() + at + kLayers.size(), nullptr, 10));
  return last + 1;
}

/// With the paths of both bases, where they are known.
std::string other_base_hint(const fs::path& folder, Model& model) {
  std::string hint = "it belongs to another base model: set model.path and [sharing] to what it was trained on";
  if (const fs::path theirs = base_of_run(fs::absolute(folder).parent_path()); !theirs.empty())
    hint += fmt::format("\nmodel.path of the run that it lies in: {}", theirs.string());
  return hint + fmt::format("\nmodel.path here: {}", model.options().path.string());
}

}  // namespace

void require_same_layers(const NativeFolder& saved, const fs::path& folder, Model& model, const std::string& method,
                         const std::string& where) {
  const Json& descriptor = saved.json().at(kAdapterKind.what);
  const Json* theirs_by = descriptor.find("method");
  if (!folded_base(model.sharing()) || !theirs_by || theirs_by->dump() != Json(method).dump()) return;
  const int64_t theirs = with_mend(folder / kAdapterKind.description, kMendNative,
                                   [&] { return layers_of(descriptor, saved.open_tensors(method + ".safetensors")); });
  const auto& layers = model.layers();
  if (theirs == 0 || theirs == static_cast<int64_t>(layers.size())) return;
  std::string originals;
  for (const BaseLayer& layer : layers) originals += fmt::format("{}{}", originals.empty() ? "" : ", ", layer.original);
  throw UserError(where,
                  fmt::format("the adapter in \"{}\" has {} layers, this folded model has {}: the original's {}",
                              folder.string(), theirs, layers.size(), originals),
                  "it belongs to another model: train one on the folded model");
}

void require_same_base(const NativeFolder& saved, const fs::path& folder, Model& model) {
  if (!model.knows_base()) return;
  const Json fingerprint = model.base_fingerprint();
  saved.require_equal("base_fingerprint", saved.json().find("base_fingerprint"), &fingerprint,
                      other_base_hint(folder, model));
}

void require_stored_as(const ConstView& stored, const std::string& name, DType dtype, const Shape& shape,
                       const std::string& file) {
  if (stored.dtype != dtype || !(stored.shape == shape))
    throw UserError(file, fmt::format("tensor \"{}\" is {} {}, expected {} {}", name, name_of(stored.dtype),
                                      stored.shape.text(), name_of(dtype), shape.text()));
}

void require_finite_slot(const ConstView& stored, const std::string& name, const Adapter& adapter,
                         const std::string& file) {
  if (const int64_t broken = first_broken(stored); broken >= 0)
    throw UserError(
        file, fmt::format("the adapter holds {}: {}", element(stored, broken), adapter.readers(name, broken)),
        "the run that wrote it had diverged: job=export run.resume=RUN/checkpoints/step-N.h5 writes the one of an earlier checkpoint");
}

}  // namespace tessera

#include "model/adapter_io.h"

#include <algorithm>
#include <cstdlib>

#include "core/device/memory.h"
#include "core/error.h"
#include "io/json_file.h"
#include "model/base_files.h"
#include "model/config_fingerprint.h"
#include "model/native_folder.h"
#include "model/native_mend.h"
#include "model/sharing/fold.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr NativeKind kAdapter{"adapter", "tessera adapter", "adapter.json"};

/// The trained slots of the adapter, in order of name.
struct NamedValues {
  std::string name;
  TensorView values;
};

std::string method_of(Model& model) { return model.adapter()->descriptor().at("method").as_string(); }

std::vector<NamedValues> adapter_slots(Model& model) {
  const std::string prefix = method_of(model) + ".";
  std::vector<NamedValues> slots;
  FlatParams& flat = model.pool().trainable();
  for (const TrainableSlot& slot : flat.slots)
    if (slot.name.rfind(prefix, 0) == 0)
      slots.push_back(
          {slot.name, flat.values.slice_rows(slot.begin, slot.begin + slot.shape.count()).reshape(slot.shape)});
  return slots;
}

void check_tensor(const ConstView& stored, const NamedValues& slot, const Adapter& adapter, const std::string& file) {
  if (stored.dtype != slot.values.dtype || !(stored.shape == slot.values.shape))
    throw UserError(file, fmt::format("tensor \"{}\" is {} {}, expected {} {}", slot.name, name_of(stored.dtype),
                                      stored.shape.text(), name_of(slot.values.dtype), slot.values.shape.text()));
  if (const int64_t broken = first_broken(stored); broken >= 0)
    throw UserError(
        file, fmt::format("the adapter holds {}: {}", element(stored, broken), adapter.readers(slot.name, broken)),
        "the run that wrote it had diverged: job=export run.resume=RUN/checkpoints/step-N.h5 writes the one of an earlier checkpoint");
}

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

/// A folded model has fewer layers than the one that it was made of: adapters of that one look as if they would do.
void require_same_layers(const NativeFolder& saved, const fs::path& folder, Model& model, const std::string& where) {
  const Json& descriptor = saved.json().at(kAdapter.what);
  const Json* method = descriptor.find("method");
  if (!folded_base(model.sharing()) || !method || method->dump() != Json(method_of(model)).dump()) return;
  const int64_t theirs = with_mend(folder / kAdapter.description, kMendNative, [&] {
    return layers_of(descriptor, saved.open_tensors(method_of(model) + ".safetensors"));
  });
  const auto& layers = model.layers();
  if (theirs == 0 || theirs == static_cast<int64_t>(layers.size())) return;
  std::string originals;
  for (const BaseLayer& layer : layers) originals += fmt::format("{}{}", originals.empty() ? "" : ", ", layer.original);
  throw UserError(where,
                  fmt::format("the adapter in \"{}\" has {} layers, this folded model has {}: the original's {}",
                              folder.string(), theirs, layers.size(), originals),
                  "it belongs to another model: train one on the folded model");
}

/// With the paths of both bases, where they are known.
std::string other_base_hint(const fs::path& folder, Model& model) {
  std::string hint = "it belongs to another base model: set model.path and [sharing] to what it was trained on";
  if (const fs::path theirs = base_of_run(fs::absolute(folder).parent_path()); !theirs.empty())
    hint += fmt::format("\nmodel.path of the run that it lies in: {}", theirs.string());
  return hint + fmt::format("\nmodel.path here: {}", model.options().path.string());
}

}  // namespace

void save_adapter(const fs::path& folder, Model& model) {
  TS_CHECK(model.adapter(), "save_adapter: the model has no adapter");
  std::vector<std::pair<std::string, ConstView>> tensors;
  for (const NamedValues& slot : adapter_slots(model)) tensors.emplace_back(slot.name, slot.values);
  NativeFolder::write(kAdapter, folder, method_of(model) + ".safetensors", tensors, model.adapter()->descriptor(),
                      {{"base_fingerprint", model.base_fingerprint()},
                       {"config_fingerprint", config_fingerprint(model.config())},
                       {"config_numbers", config_numbers(model.config())}});
}

fs::path adapter_folder(const fs::path& folder) {
  const fs::path inside = folder / "adapter";
  return !fs::exists(folder / kAdapter.description) && fs::exists(inside / kAdapter.description) ? inside : folder;
}

void load_adapter(const fs::path& given, Model& model, const std::string& where) {
  const fs::path folder = adapter_folder(given);
  TS_CHECK(model.adapter(), "load_adapter: the model has no adapter");
  const std::string file_name = method_of(model) + ".safetensors";
  if (fs::exists(folder / "adapter_config.json") && !fs::exists(folder / kAdapter.description))
    throw UserError(
        where, fmt::format("this is an assembled LoRA (no pool); resume needs {}", file_name),
        fmt::format("\"{}\" was exported for PEFT: name the folder of the native adapter", folder.string()));
  NativeFolder saved(kAdapter, folder, where);
  saved.read("name the folder that a run saved its adapter to");
  require_same_layers(saved, folder, model, where);
  saved.require_same(
      model.adapter()->descriptor(), {"dropout"}, [](const std::string& key) {  // how it was trained, not what it is
        return key == "tables" ? "the index tables were drawn in another way: this adapter cannot be read"
                               : "compare adapter.targets and the model";
      });
  if (model.knows_base()) {
    const Json fingerprint = model.base_fingerprint();
    saved.require_equal("base_fingerprint", saved.json().find("base_fingerprint"), &fingerprint,
                        other_base_hint(folder, model));
  }
  saved.require_same_config(model.config());

  const auto reader = saved.open_tensors(file_name);
  const std::string file = (folder / file_name).string();
  const auto slots = adapter_slots(model);
  for (const NamedValues& slot : slots) check_tensor(reader.at(slot.name), slot, *model.adapter(), file);
  if (reader.names().size() != slots.size())
    throw UserError(file, fmt::format("holds {} tensors, expected {}", reader.names().size(), slots.size()));
  if (model.pool().memory() == Memory::counted) return;
  for (const NamedValues& slot : slots) copy(reader.at(slot.name), slot.values);
}

}  // namespace tessera

#include "model/adapter_io.h"

#include "core/device/memory.h"
#include "core/error.h"
#include "model/adapter_checks.h"
#include "model/config_fingerprint.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

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

}  // namespace

void save_adapter(const fs::path& folder, Model& model) {
  TS_CHECK(model.adapter(), "save_adapter: the model has no adapter");
  std::vector<std::pair<std::string, ConstView>> tensors;
  for (const NamedValues& slot : adapter_slots(model)) tensors.emplace_back(slot.name, slot.values);
  NativeFolder::write(kAdapterKind, folder, method_of(model) + ".safetensors", tensors, model.adapter()->descriptor(),
                      {{"base_fingerprint", model.base_fingerprint()},
                       {"config_fingerprint", config_fingerprint(model.config())},
                       {"config_numbers", config_numbers(model.config())}});
}

fs::path adapter_folder(const fs::path& folder) {
  const fs::path inside = folder / "adapter";
  return !fs::exists(folder / kAdapterKind.description) && fs::exists(inside / kAdapterKind.description) ? inside
                                                                                                         : folder;
}

void load_adapter(const fs::path& given, Model& model, const std::string& where) {
  const fs::path folder = adapter_folder(given);
  TS_CHECK(model.adapter(), "load_adapter: the model has no adapter");
  const std::string file_name = method_of(model) + ".safetensors";
  if (fs::exists(folder / "adapter_config.json") && !fs::exists(folder / kAdapterKind.description))
    throw UserError(
        where, fmt::format("this is an assembled LoRA (no pool); resume needs {}", file_name),
        fmt::format("\"{}\" was exported for PEFT: name the folder of the native adapter", folder.string()));
  NativeFolder saved(kAdapterKind, folder, where);
  saved.read("name the folder that a run saved its adapter to");
  require_same_layers(saved, folder, model, method_of(model), where);
  saved.require_same(
      model.adapter()->descriptor(), {"dropout"}, [](const std::string& key) {  // how it was trained, not what it is
        return key == "tables" ? "the index tables were drawn in another way: this adapter cannot be read"
                               : "compare adapter.targets and the model";
      });
  require_same_base(saved, folder, model);
  saved.require_same_config(model.config());

  const auto reader = saved.open_tensors(file_name);
  const std::string file = (folder / file_name).string();
  const auto slots = adapter_slots(model);
  for (const NamedValues& slot : slots) {
    const ConstView stored = reader.at(slot.name);
    require_stored_as(stored, slot.name, slot.values.dtype, slot.values.shape, file);
    require_finite_slot(stored, slot.name, *model.adapter(), file);
  }
  if (reader.names().size() != slots.size())
    throw UserError(file, fmt::format("holds {} tensors, expected {}", reader.names().size(), slots.size()));
  if (model.pool().memory() == Memory::counted) return;
  for (const NamedValues& slot : slots) copy(reader.at(slot.name), slot.values);
}

}  // namespace tessera

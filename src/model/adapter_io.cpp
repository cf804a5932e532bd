#include "model/adapter_io.h"

#include <cmath>
#include <cstring>

#include "io/files.h"
#include "io/safetensors.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "tessera adapter";
constexpr int64_t kFormatVersion = 1;

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

/// Raises a difference between the saved and this run's value.
class Comparison {
 public:
  Comparison(fs::path folder, std::string where) : folder_(std::move(folder)), where_(std::move(where)) {}

  void expect_equal(const std::string& what, const Json* saved, const Json* ours, const std::string& hint) const {
    const std::string theirs = saved ? saved->dump() : "nothing", mine = ours ? ours->dump() : "nothing";
    if (theirs == mine) return;
    throw UserError(where_,
                    fmt::format("the adapter in \"{}\" was saved with {} {}, this run has {}", folder_.string(), what,
                                theirs, mine),
                    hint);
  }

  /// Lists are compared entry by entry: a message shows the first that differs, not hundreds.
  void expect_equal_lists(const std::string& what, const Json& saved, const Json& ours, const std::string& hint) const {
    const auto &theirs = saved.items(), &mine = ours.items();
    for (size_t i = 0; i < std::max(theirs.size(), mine.size()); ++i)
      expect_equal(what, i < theirs.size() ? &theirs[i] : nullptr, i < mine.size() ? &mine[i] : nullptr, hint);
  }

  void expect_same_adapter(const Json& saved, const Json& ours) const {
    for (const auto& [key, value] : ours.members()) {
      if (key == "dropout") continue;  // how it was trained, not what it is
      const Json* theirs = saved.find(key);
      if (value.is_array() && theirs && theirs->is_array())
        expect_equal_lists(key, *theirs, value,
                           key == "tables" ? "the index tables were drawn in another way: this adapter cannot be read"
                                           : "compare adapter.targets and the model");
      else
        expect_equal(key, theirs, &value,
                     fmt::format("set adapter.{} to the saved value, or leave adapter.load out", key));
    }
  }

 private:
  fs::path folder_;
  std::string where_;
};

Json read_description(const fs::path& folder, const std::string& method, const std::string& where) {
  if (!fs::is_directory(folder))
    throw UserError(where, fmt::format("the adapter's folder \"{}\" does not exist", folder.string()));
  if (!fs::exists(folder / "adapter.json")) {
    if (fs::exists(folder / "adapter_config.json"))
      throw UserError(
          where, fmt::format("this is an assembled LoRA (no pool); resume needs {}.safetensors", method),
          fmt::format("\"{}\" was exported for PEFT: name the folder of the native adapter", folder.string()));
    throw UserError(where, fmt::format("\"{}\" holds no adapter.json", folder.string()),
                    "name the folder that a run saved its adapter to");
  }
  const std::string file = (folder / "adapter.json").string();
  Json json = Json::parse(read_text_file(file), file);
  const Json* format = json.find("format");
  if (!format || format->dump() != Json(kFormat).dump())
    throw UserError(file, fmt::format("this is no description of an adapter: \"format\" is not \"{}\"", kFormat));
  with_place(file, [&] {
    if (const int64_t version = json.at("format_version").as_integer(); version != kFormatVersion)
      throw UserError(file, fmt::format("format_version is {}, this program reads {}", version, kFormatVersion),
                      "use the version of the program that wrote it, or a later one");
    json.at("adapter").members();
    json.at("sha256").as_string();
  });
  return json;
}

template <class T> int64_t first_broken(const ConstView& view) {
  const auto values = view.as<T>();
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(values[i])) return static_cast<int64_t>(i);
  return -1;
}

void check_tensor(const ConstView& stored, const NamedValues& slot, const Adapter& adapter, const std::string& file) {
  if (stored.dtype != slot.values.dtype || !(stored.shape == slot.values.shape))
    throw UserError(file, fmt::format("tensor \"{}\" is {} {}, expected {} {}", slot.name, name_of(stored.dtype),
                                      stored.shape.text(), name_of(slot.values.dtype), slot.values.shape.text()));
  const int64_t broken = stored.dtype == DType::f64 ? first_broken<double>(stored) : first_broken<float>(stored);
  if (broken >= 0)
    throw UserError(
        file, fmt::format("the adapter holds {}: {}", element(stored, broken), adapter.readers(slot.name, broken)),
        "the run that wrote it had diverged: take an earlier adapter");
}

}  // namespace

void save_adapter(const fs::path& folder, Model& model) {
  TS_CHECK(model.adapter(), "save_adapter: the model has no adapter");
  create_folder(folder);
  const std::string name = method_of(model) + ".safetensors";
  std::vector<std::pair<std::string, ConstView>> tensors;
  int64_t parameters = 0;
  for (const NamedValues& slot : adapter_slots(model)) {
    tensors.emplace_back(slot.name, slot.values);
    parameters += slot.values.shape.count();
  }
  write_safetensors(folder / name, tensors);
  const Json json = Json::object()
                        .set("format", kFormat)
                        .set("format_version", kFormatVersion)
                        .set("adapter", model.adapter()->descriptor())
                        .set("base_fingerprint", model.base_fingerprint())
                        .set("parameters", parameters)
                        .set("file", name)
                        .set("sha256", sha256_of_file(folder / name));
  write_text_file(folder / "adapter.json", json.dump(2) + "\n");
}

void load_adapter(const fs::path& folder, Model& model, const std::string& where) {
  TS_CHECK(model.adapter(), "load_adapter: the model has no adapter");
  const std::string method = method_of(model);
  const Json json = read_description(folder, method, where);
  const Comparison comparison(folder, where);
  comparison.expect_same_adapter(json.at("adapter"), model.adapter()->descriptor());
  const Json fingerprint = model.base_fingerprint();
  comparison.expect_equal("base_fingerprint", json.find("base_fingerprint"), &fingerprint,
                          "it belongs to another base model: set model.path to the one it was trained on");

  const fs::path file = folder / (method + ".safetensors");
  const auto reader = SafetensorsReader::open(file);
  if (const std::string hash = sha256_of_file(file), &saved = json.at("sha256").as_string(); hash != saved)
    throw UserError(file.string(), fmt::format("its SHA-256 is {}, adapter.json says {}", hash, saved),
                    "the file was altered, or the save was cut short: take another copy");
  const auto slots = adapter_slots(model);
  for (const NamedValues& slot : slots) check_tensor(reader.at(slot.name), slot, *model.adapter(), file.string());
  if (reader.names().size() != slots.size())
    throw UserError(file.string(), fmt::format("holds {} tensors, expected {}", reader.names().size(), slots.size()));
  for (const NamedValues& slot : slots)
    std::memcpy(slot.values.mutable_data(), reader.at(slot.name).data, static_cast<size_t>(slot.values.bytes()));
}

}  // namespace tessera

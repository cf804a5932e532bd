#include "model/native_adapter.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "io/files.h"
#include "io/json_file.h"
#include "model/adapter_checks.h"
#include "model/native_mend.h"
#include "model/own_pool_view.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

int64_t whole_in(const Json& json, const char* key, int64_t least, int64_t most) {
  const int64_t value = json.at(key).as_integer();
  if (value < least || value > most)
    throw UserError("", fmt::format("\"{}\" is {}, expected {} to {}", key, value, least, most));
  return value;
}

std::string one_of(const Json& json, const char* key, std::initializer_list<const char*> known) {
  const std::string& value = json.at(key).as_string();
  if (std::find(known.begin(), known.end(), value) == known.end())
    throw UserError("", fmt::format("\"{}\" is \"{}\"", key, value));
  return value;
}

/// The settings that a saved adapter was made with. What is not in its range comes of no run.
AdapterConfig config_of(const Json& descriptor) {
  AdapterConfig config;
  config.method = one_of(descriptor, "method", {"lora", "mos"});
  config.rank = whole_in(descriptor, "rank", 1, 1 << 20);
  config.alpha = descriptor.at("alpha").as_number();
  if (!std::isfinite(config.alpha)) throw UserError("", "\"alpha\" is no number");
  config.scale = one_of(descriptor, "scale", {"standard", "rs"});
  config.targets.clear();
  for (const Json& type : descriptor.at("types").items()) config.targets.push_back(type.as_string());
  if (config.method == "lora") return config;
  config.equivalent_rank = whole_in(descriptor, "equivalent_rank", 1, 1024);
  config.private_rank = whole_in(descriptor, "private_rank", 0, 1024);
  config.shards = whole_in(descriptor, "shards", 1, 1024);
  config.draw = one_of(descriptor, "draw", {"random", "tied", "pure"});
  config.index_seed = descriptor.at("index_seed").as_integer();
  return config;
}

class NativeAdapter final : public SavedAdapter {
 public:
  NativeAdapter(const fs::path& folder, std::string where)
      : folder_(folder), where_(std::move(where)), saved_(kAdapterKind, folder, where_) {
    saved_.read("name the folder that a run saved its adapter to");
    const Json& descriptor = saved_.json().at(kAdapterKind.what);
    config_ = with_mend(folder_ / kAdapterKind.description, kMendNative, [&] { return config_of(descriptor); });
    reader_ = std::make_unique<const SafetensorsReader>(saved_.open_tensors(file_name()));
    std::string text;
    for (const auto& [key, value] : descriptor.members())  // dropout is how it was trained, not what it is
      if (key != "dropout") text += key + " " + value.dump() + "\n";
    content_ = sha256_hex(text + saved_.json().at("sha256").as_string());
  }

  std::string method() const override { return config_.method; }
  int64_t rank() const override { return *config_.rank; }
  const std::string& content() const override { return content_; }
  void require_base(Model& model) const override { require_same_base(saved_, folder_, model); }

  AdapterWeights attach(Model& model, ParameterPool& pool) const override {
    saved_.require_same_config(model.config());
    require_same_layers(saved_, folder_, model, config_.method, where_);
    const std::unique_ptr<Adapter> adapter = make_adapter(config_, where_);
    std::vector<std::string> names;
    AdapterWeights weights =
        adapter->attach(model.decoder().specs(), pool, [&](const std::string& name, SlotOptions slot) {
          names.push_back(name);
          return reserve_stored(name, std::move(slot), pool);
        });
    saved_.require_same(adapter->descriptor(), {"dropout"}, [](const std::string& key) {
      return key == "tables" ? "the index tables were drawn in another way: this adapter cannot be read"
                             : "the model has other weights than the one that it was trained on";
    });
    for (const std::string& name : names) require_finite_slot(reader_->at(name), name, *adapter, file());
    if (reader_->names().size() != names.size())
      throw UserError(file(), fmt::format("holds {} tensors, expected {}", reader_->names().size(), names.size()));
    for (auto& deltas : weights.by_weight)
      for (LowRank& delta : deltas) {
        delta.a = std::make_shared<OwnPoolView>(delta.a, pool);
        delta.bt = std::make_shared<OwnPoolView>(delta.bt, pool);
      }
    return weights;
  }

 private:
  std::string file_name() const { return config_.method + ".safetensors"; }
  std::string file() const { return (folder_ / file_name()).string(); }

  SlotId reserve_stored(const std::string& name, SlotOptions slot, ParameterPool& pool) const {
    const ConstView stored = reader_->at(name);
    require_stored_as(stored, name, DType::f32, slot.shape, file());
    slot.trainable = false;
    slot.init = {.source = stored, .file = reader_->file_of(name)};
    return pool.reserve(name, std::move(slot));
  }

  fs::path folder_;
  std::string where_;
  NativeFolder saved_;
  AdapterConfig config_;
  std::unique_ptr<const SafetensorsReader> reader_;
  std::string content_;
};

}  // namespace

std::unique_ptr<SavedAdapter> open_native_adapter(const fs::path& folder, const std::string& where) {
  return std::make_unique<NativeAdapter>(folder, where);
}

}  // namespace tessera

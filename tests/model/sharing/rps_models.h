#pragma once
// Models that read their weights from a pool.

#include "core/error.h"
#include "model/export.h"
#include "model/sharing_io.h"
#include "support/rps.h"

namespace tessera::test {

class RpsModel : public testing::Test {
 protected:
  Model::Settings settings(const SharingConfig& sharing, const test::TinyConfig& config = {}) {
    Model::Settings s = test::tiny_settings(folder_.path(), config);
    s.sharing = sharing;
    s.train_base = true;
    s.where_sharing = "recipe.toml:3:1";
    return s;
  }
  /// A dense model's folder, drawn at random.
  std::filesystem::path dense_folder(const test::TinyConfig& config = {}, const std::string& name = "dense") {
    Model::Settings s = test::tiny_settings(folder_.path(), config);
    Model model(s);
    export_merged(folder_ / name, model, folder_.path(), own_.ctx);
    std::filesystem::remove(folder_ / name / "tessera.json");  // tests change the files
    return folder_ / name;
  }
  /// Settings to share the weights in a folder.
  Model::Settings given(const std::filesystem::path& folder, const SharingConfig& sharing) {
    Model::Settings s;
    s.model.path = folder;
    s.max_position = 64;
    s.sharing = sharing;
    s.train_base = true;
    s.where_sharing = "recipe.toml:3:1";
    return s;
  }
  std::vector<std::string> slots(Model& model) {
    std::vector<std::string> names;
    for (const TrainableSlot& slot : model.pool().trainable().slots) names.push_back(slot.name);
    return names;
  }
  std::vector<std::string> tensors(Model& model) {
    std::vector<std::string> names;
    const Json descriptor = model.sharing().descriptor();
    for (const Json& tensor : descriptor.at("tensors").items()) names.push_back(tensor.at("name").as_string());
    return names;
  }
  struct Fault {
    std::string where, message, hint;
  };
  Fault fault(const Model::Settings& s) {
    try {
      Model model(s);
    } catch (const UserError& error) {
      return {error.where(), error.message(), error.hint()};
    }
    return {"", "nothing was thrown", ""};
  }

  test::TemporaryFolder folder_;
  test::OwnContext own_;
};

inline constexpr int64_t kLinears = 3 * (16 * 16 + 2 * 8 * 16 + 16 * 16 + 3 * 16 * 20), kEmbedding = 23 * 16;

/// The dense folder's tensors, altered and written again.
inline void rewrite(const std::filesystem::path& folder,
                    const std::function<void(std::map<std::string, Tensor>&)>& alter) {
  std::map<std::string, Tensor> tensors;
  {
    const auto reader = SafetensorsReader::open_folder(folder);
    for (const std::string& name : reader.names()) {
      const ConstView view = reader.at(name);
      tensors[name] = Tensor(view.shape, view.dtype);
      std::memcpy(tensors[name].view().mutable_data(), view.data, static_cast<size_t>(view.bytes()));
    }
  }
  alter(tensors);
  std::vector<std::pair<std::string, ConstView>> list;
  for (const auto& [name, tensor] : tensors) list.emplace_back(name, tensor.view());
  write_safetensors(folder / "model.safetensors", list, {{"format", "pt"}});
}

}  // namespace tessera::test

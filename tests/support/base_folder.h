#pragma once
// Folders of small base models whose files tests change, and what a model says that is made of them.

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/error.h"
#include "model/export.h"
#include "support/tiny_model.h"

namespace tessera::test {

class BaseFolder : public testing::Test {
 protected:
  using Tensors = std::map<std::string, Tensor>;

  static Tensor copy(ConstView view) {
    Tensor tensor(view.shape, view.dtype);
    std::memcpy(tensor.view().mutable_data(), view.data, static_cast<size_t>(view.bytes()));
    return tensor;
  }

  static Tensor zeros(Shape shape) { return {shape, DType::f32}; }

  /// A drawn model's folder.
  std::filesystem::path write_model(const std::string& name, const TinyConfig& config) {
    const std::filesystem::path drawn = folder_ / (name + "-drawn"), folder = folder_ / name;
    std::filesystem::create_directories(drawn);
    Model model(tiny_settings(drawn, config));
    export_merged(folder, model, "", own_.ctx);
    std::filesystem::remove(folder / "tessera.json");  // tests change the files
    return folder;
  }
  std::filesystem::path write_model(const std::string& name, bool tied) {
    return write_model(name, TinyConfig{.tied = tied});
  }

  Model::Settings given(const std::filesystem::path& folder) const {
    Model::Settings settings;
    settings.model.path = folder;
    settings.max_position = 64;
    settings.where_model = "a.toml:2:1";
    return settings;
  }

  /// Rewrites model.safetensors.
  void change(const std::filesystem::path& folder, const std::function<void(Tensors&)>& edit) const {
    Tensors tensors;
    {
      const auto reader = SafetensorsReader::open_folder(folder);
      for (const std::string& name : reader.names()) tensors[name] = copy(reader.at(name));
    }
    edit(tensors);
    std::vector<std::pair<std::string, ConstView>> views;
    for (const auto& [name, tensor] : tensors) views.emplace_back(name, tensor.view());
    write_safetensors(folder / "model.safetensors", views, {{"format", "pt"}});
  }
  void rename(const std::filesystem::path& folder, const std::function<std::string(const std::string&)>& other) const {
    change(folder, [&](Tensors& tensors) {
      Tensors renamed;
      for (auto& [name, tensor] : tensors) renamed[other(name)] = std::move(tensor);
      tensors = std::move(renamed);
    });
  }

  /// Sets keys of config.json; null takes one out.
  void configure(const std::filesystem::path& folder, const Json::Object& keys) const {
    Json config = Json::parse(read_file(folder / "config.json"), "config.json");
    for (const auto& [key, value] : keys) config.set(key, value);
    write_file(folder / "config.json", config.dump());
  }

  std::string fault(const Model::Settings& settings) const {
    try {
      Model model(settings);
    } catch (const UserError& error) {
      return error.what();
    }
    return "no fault";
  }
  std::string fault(const std::filesystem::path& folder) const { return fault(given(folder)); }

  TemporaryFolder folder_;
  OwnContext own_;
};

}  // namespace tessera::test

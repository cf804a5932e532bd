#include "train/checkpoint.h"

#include <algorithm>

#include "core/json.h"
#include "io/files.h"
#include "io/hdf5_file.h"
#include "train/evaluation.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kFormatVersion = 1;
constexpr const char* kBest = "best.h5";

std::vector<fs::path> checkpoint_files(const fs::path& folder) {  // newest first
  std::vector<fs::path> files;
  if (!fs::is_directory(folder)) return files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("step-", 0) == 0 && entry.path().extension() == ".h5") files.push_back(entry.path());
  }
  std::sort(files.rbegin(), files.rend());
  return files;
}

TensorView slot_view(const TensorView& flat, const TrainableSlot& slot) {
  return flat.slice_rows(slot.begin, slot.begin + slot.shape.count()).reshape(slot.shape);
}

void write_state(Hdf5File& file, const FlatParams& params, Optimizer& optimizer) {
  for (const TrainableSlot& slot : params.slots) file.write("/pool/" + slot.name, slot_view(params.values, slot));
  optimizer.visit_state([&](const std::string& name, std::span<float> state) {
    const TensorView flat = view_of(state, {static_cast<int64_t>(state.size())});
    for (const TrainableSlot& slot : params.slots)
      file.write("/optimizer/" + slot.name + "/" + name, slot_view(flat, slot));
  });
}

void write_meta(Hdf5File& file, const CheckpointMeta& meta) {
  Json recipe = Json::object();
  for (const auto& [key, value] : meta.recipe) recipe.set(key, value);
  file.write_integer("/meta/format_version", kFormatVersion);
  file.write_integer("/meta/rules", static_cast<int64_t>(meta.rules));
  file.write_integer("/meta/step", meta.step);
  file.write_integer("/meta/rows_consumed", meta.rows_consumed);
  file.write_integer("/meta/ranks", meta.ranks);
  file.write_integer("/meta/tokens", meta.tokens);
  file.write_number("/meta/seconds", meta.seconds);
  file.write_number("/meta/last_loss", meta.last_loss);
  file.write_number("/meta/best_loss", meta.best_loss);
  file.write_text("/meta/first_eval", to_json(meta.first_eval).dump());
  file.write_text("/meta/last_eval", to_json(meta.last_eval).dump());
  file.write_text("/meta/eval_set", meta.eval_set);
  file.write_text("/meta/recipe", recipe.dump());
  file.write_text("/meta/data_hash", meta.data_hash);
  file.write_text("/meta/base_fingerprint", meta.base_fingerprint);
}

}  // namespace

fs::path checkpoint_file(const fs::path& folder, int64_t step) { return folder / fmt::format("step-{:08}.h5", step); }

void save_checkpoint(const fs::path& folder, const CheckpointMeta& meta, const FlatParams& params, Optimizer& optimizer,
                     int64_t keep, bool is_best) {
  fs::create_directories(folder);
  const fs::path file = checkpoint_file(folder, meta.step);
  const auto write = [&](const fs::path& temporary) {
    Hdf5File h5 = Hdf5File::create(temporary);
    write_meta(h5, meta);
    write_state(h5, params, optimizer);
    h5.seal();
  };
  write_file_atomically(file, write);
  write_text_file(folder / "latest", file.filename().string() + "\n");
  if (is_best) write_file_atomically(folder / kBest, write);
  const auto files = checkpoint_files(folder);
  for (size_t i = static_cast<size_t>(keep); i < files.size(); ++i) fs::remove(files[i]);
}

CheckpointMeta read_checkpoint_meta(const fs::path& file) {
  const Hdf5File h5 = Hdf5File::open(file);
  const int64_t version = h5.read_integer("/meta/format_version");
  if (version != kFormatVersion)
    throw UserError(file.string(), fmt::format("checkpoint format {}, this program reads {}", version, kFormatVersion));
  CheckpointMeta meta;
  meta.rules = with_place(file.string(), [&] {
    return h5.contains("/meta/rules") ? rules_of(h5.read_integer("/meta/rules")) : Rules::first;
  });
  meta.step = h5.read_integer("/meta/step");
  meta.rows_consumed = h5.read_integer("/meta/rows_consumed");
  meta.ranks = h5.read_integer("/meta/ranks");
  meta.tokens = h5.read_integer("/meta/tokens");
  meta.seconds = h5.read_number("/meta/seconds");
  meta.last_loss = h5.read_number("/meta/last_loss");
  meta.best_loss = h5.read_number("/meta/best_loss");
  meta.first_eval = loss_sums_of(Json::parse(h5.read_text("/meta/first_eval"), file.string()));
  meta.last_eval = loss_sums_of(Json::parse(h5.read_text("/meta/last_eval"), file.string()));
  if (h5.contains("/meta/eval_set")) meta.eval_set = h5.read_text("/meta/eval_set");
  const Json recipe = Json::parse(h5.read_text("/meta/recipe"), file.string());
  for (const auto& [key, value] : recipe.members()) meta.recipe.emplace_back(key, value.as_string());
  meta.data_hash = h5.read_text("/meta/data_hash");
  meta.base_fingerprint = h5.read_text("/meta/base_fingerprint");
  return meta;
}

void load_checkpoint(const fs::path& file, FlatParams& params, Optimizer& optimizer) {
  const Hdf5File h5 = Hdf5File::open(file, false);  // the seal was verified with the meta
  const auto check = [&](const std::string& path, const Shape& shape) {
    if (!h5.contains(path))
      throw UserError(file.string(), fmt::format("holds no \"{}\"", path),
                      "the checkpoint belongs to another model or adapter");
    if (!(h5.shape_of(path) == shape))
      throw UserError(file.string(),
                      fmt::format("\"{}\" is {}, expected {}", path, h5.shape_of(path).text(), shape.text()));
  };
  for (const TrainableSlot& slot : params.slots) {
    check("/pool/" + slot.name, slot.shape);
    optimizer.visit_state(
        [&](const std::string& name, std::span<float>) { check("/optimizer/" + slot.name + "/" + name, slot.shape); });
  }
  for (const TrainableSlot& slot : params.slots) h5.read("/pool/" + slot.name, slot_view(params.values, slot));
  optimizer.visit_state([&](const std::string& name, std::span<float> state) {
    const TensorView flat = view_of(state, {static_cast<int64_t>(state.size())});
    for (const TrainableSlot& slot : params.slots)
      h5.read("/optimizer/" + slot.name + "/" + name, slot_view(flat, slot));
  });
}

std::optional<fs::path> newest_checkpoint(const fs::path& folder, std::vector<std::string>& notices) {
  std::string damaged;
  for (const fs::path& file : checkpoint_files(folder)) {
    try {
      read_checkpoint_meta(file);
      return file;
    } catch (const UserError& error) {
      damaged += std::string(error.what()) + "\n";
      notices.push_back(fmt::format("{}\n  this checkpoint is skipped", error.what()));
    }
  }
  if (damaged.empty()) return std::nullopt;
  throw UserError(folder.string(), "every checkpoint of this run is damaged",
                  damaged + "put back a copy, or remove the folder to train from the start");
}

}  // namespace tessera

#include "train/checkpoint.h"

#include <algorithm>

#include "core/json.h"
#include "io/files.h"
#include "io/hdf5_file.h"
#include "io/numbered_name.h"
#include "train/evaluation.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kFormatVersion = 1;
constexpr const char *kBest = "best.h5", *kLatest = "latest";

constexpr std::string_view kPrefix = "step-", kSuffix = ".h5";

std::vector<int64_t> steps_in(const fs::path& folder) {  // newest first
  std::vector<int64_t> steps;
  if (!fs::is_directory(folder)) return steps;
  for (const auto& entry : fs::directory_iterator(folder))
    if (const auto step = number_in_name(entry.path().filename().string(), kPrefix, kSuffix);
        step && entry.is_regular_file())
      steps.push_back(*step);
  std::sort(steps.rbegin(), steps.rend());
  return steps;
}

bool is_whole(const fs::path& file) {
  try {
    read_checkpoint_meta(file);
    return true;
  } catch (const UserError&) {
    return false;
  }
}

void remove_old(const fs::path& folder, int64_t written, Retention& retention) {
  int64_t kept = 0;
  for (const int64_t step : steps_in(folder)) {
    if (step > written) continue;
    const fs::path file = checkpoint_file(folder, step);
    if (kept >= retention.keep && step != retention.gone_on_from) {
      fs::remove(file);
      retention.whole.erase(step);
    } else if (retention.whole.count(step) || is_whole(file)) {
      retention.whole.insert(step);
      ++kept;
    }
  }
  retention.gone_on_from = 0;
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

fs::path checkpoint_file(const fs::path& folder, int64_t step) {
  return folder / numbered_name(kPrefix, step, kSuffix);
}

void save_checkpoint(const fs::path& folder, const CheckpointMeta& meta, const FlatParams& params, Optimizer& optimizer,
                     Retention& retention, bool is_best) {
  create_folder(folder);
  const fs::path file = checkpoint_file(folder, meta.step);
  const auto write = [&](const fs::path& temporary) {
    Hdf5File h5 = Hdf5File::create(temporary);
    write_meta(h5, meta);
    write_state(h5, params, optimizer);
    h5.seal();
  };
  write_file_atomically(file, write);
  write_text_file(folder / kLatest, file.filename().string() + "\n");
  if (is_best) write_file_atomically(folder / kBest, write);
  retention.whole.insert(meta.step);
  remove_old(folder, meta.step, retention);
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

namespace {

/// @throws UserError when the folder says that it held checkpoints, and none is left
void refuse_lost(const fs::path& folder) {
  if (!fs::exists(folder / kLatest)) return;
  std::string name = read_text_file(folder / kLatest);
  name = name.substr(0, name.find('\n'));
  if (!number_in_name(name, kPrefix, kSuffix)) return;  // a snapshot: the log is the checkpoint
  throw UserError(folder.string(), fmt::format("\"{}\" names {}, and no checkpoint is here any more", kLatest, name),
                  "put back a copy, or remove the folder to train from the start");
}

}  // namespace

std::optional<fs::path> newest_checkpoint(const fs::path& folder, std::vector<std::string>& notices) {
  std::string damaged;
  for (const int64_t step : steps_in(folder)) {
    const fs::path file = checkpoint_file(folder, step);
    try {
      read_checkpoint_meta(file);
      return file;
    } catch (const UserError& error) {
      damaged += std::string(error.what()) + "\n";
      notices.push_back(fmt::format("{}\n  this checkpoint is skipped", error.what()));
    }
  }
  if (damaged.empty()) {
    refuse_lost(folder);
    return std::nullopt;
  }
  throw UserError(folder.string(), "every checkpoint of this run is damaged",
                  damaged + "put back a copy, or remove the folder to train from the start");
}

}  // namespace tessera

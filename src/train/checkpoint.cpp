//   /meta/...                     rules, step, rows read, sums of evaluations, the recipe: visit_meta lists the fields
//   /pool/<slot>                  values of a trainable slot
//   /optimizer/<slot>/<vector>    the optimizer's vectors, cut by slots, too
// Cut by slots, a file does not depend on where slots lie in the flat memory, nor on the gaps between them.

#include "train/checkpoint.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/device/memory.h"
#include "core/error.h"
#include "core/json.h"
#include "io/files.h"
#include "io/hdf5_file.h"
#include "io/numbered_name.h"
#include "model/native_folder.h"
#include "score/metrics/metric.h"
#include "train/divergence.h"
#include "train/send_numbers.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kFormatVersion = 1;
// best.h5 is a copy of the file with the lowest loss; `latest` is a text with the newest file's name.
constexpr const char *kBest = "best.h5", *kLatest = "latest";

constexpr std::string_view kPrefix = "step-", kSuffix = ".h5";

bool is_whole(const fs::path& file) {
  try {
    read_checkpoint_meta(file);
    return true;
  } catch (const UserError&) {
    return false;
  }
}

// From the newest to the oldest. Only checkpoints that can be read count towards those that are kept: a damaged newer
// one must not be the reason for removing what a run could go on from.
void remove_old(const fs::path& folder, int64_t written, Retention& retention) {
  int64_t kept = 0;
  for (const int64_t step : checkpoint_steps(folder)) {
    // Files of later steps are of a state that the run went back behind.
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
  // Its successor is written: from the next time on, it is a checkpoint like any other.
  retention.gone_on_from = 0;
}

TensorView slot_view(const TensorView& flat, const TrainableSlot& slot) {
  return flat.slice_rows(slot.begin, slot.begin + slot.shape.count()).reshape(slot.shape);
}

void write_state(Hdf5File& file, const FlatParams& params, Optimizer& optimizer) {
  for (const TrainableSlot& slot : params.slots) file.write("/pool/" + slot.name, slot_view(params.values, slot));
  optimizer.visit_state([&](const std::string& name, TensorView flat) {
    for (const TrainableSlot& slot : params.slots)
      file.write("/optimizer/" + slot.name + "/" + name, slot_view(flat, slot));
  });
}

using RecipeValues = std::vector<std::pair<std::string, std::string>>;

Json to_json(const RecipeValues& values) {
  Json json = Json::object();
  for (const auto& [key, value] : values) json.set(key, value);
  return json;
}

RecipeValues values_of(const Json& json) {
  RecipeValues values;
  for (const auto& [key, value] : json.members()) values.emplace_back(key, value.as_string());
  return values;
}

/// Whether files of earlier versions have the field.
enum class Since { ever, later };

/// Calls f(name, member, since) for every field, in the order of the file.
template <class Meta, class F> void visit_meta(Meta& meta, F&& f) {
  f("rules", meta.rules, Since::later);
  f("step", meta.step, Since::ever);
  f("rows_consumed", meta.rows_consumed, Since::ever);
  f("ranks", meta.ranks, Since::ever);
  f("tokens", meta.tokens, Since::ever);
  f("seconds", meta.seconds, Since::ever);
  f("last_loss", meta.last_loss, Since::ever);
  f("best_loss", meta.best_loss, Since::ever);
  f("first_eval", meta.first_eval, Since::ever);
  f("last_eval", meta.last_eval, Since::ever);
  f("eval_set", meta.eval_set, Since::later);
  f("owes_evaluation", meta.owes_evaluation, Since::later);
  f("recipe", meta.recipe, Since::ever);
  f("data_hash", meta.data_hash, Since::ever);
  f("base_fingerprint", meta.base_fingerprint, Since::ever);
  f("config_fingerprint", meta.config_fingerprint, Since::later);
  f("start_values", meta.start_values, Since::later);
}

struct MetaWriter {
  Hdf5File& file;
  void put(const std::string& path, Rules rules) const { file.write_integer(path, static_cast<int64_t>(rules)); }
  void put(const std::string& path, int64_t value) const { file.write_integer(path, value); }
  void put(const std::string& path, double value) const { file.write_number(path, value); }
  void put(const std::string& path, const std::string& text) const { file.write_text(path, text); }
  void put(const std::string& path, const LossSums& sums) const { file.write_text(path, to_json(sums).dump()); }
  void put(const std::string& path, const RecipeValues& values) const { file.write_text(path, to_json(values).dump()); }
};

struct MetaReader {
  const Hdf5File& file;
  std::string where;
  Json json(const std::string& path) const { return Json::parse(file.read_text(path), where); }
  void get(const std::string& path, Rules& rules) const {
    rules = with_place(where, [&] { return rules_of(file.read_integer(path)); });
  }
  void get(const std::string& path, int64_t& value) const { value = file.read_integer(path); }
  void get(const std::string& path, double& value) const { value = file.read_number(path); }
  void get(const std::string& path, std::string& text) const { text = file.read_text(path); }
  void get(const std::string& path, LossSums& sums) const { sums = loss_sums_of(json(path)); }
  void get(const std::string& path, RecipeValues& values) const { values = values_of(json(path)); }
};

void write_meta(Hdf5File& file, const CheckpointMeta& meta) {
  file.write_integer("/meta/format_version", kFormatVersion);
  visit_meta(meta, [writer = MetaWriter{file}](const char* name, const auto& member, Since) {
    writer.put(std::string("/meta/") + name, member);
  });
}

}  // namespace

fs::path checkpoint_file(const fs::path& folder, int64_t step) {
  return folder / numbered_name(kPrefix, step, kSuffix);
}

void require_finite_state(int64_t step, const FlatParams& params, Optimizer& optimizer) {
  // The values and, behind them, the optimizer's vectors: numbers that are not finite may begin in either.
  std::vector<std::pair<std::string, ConstView>> tensors;
  for (const TrainableSlot& slot : params.slots) tensors.emplace_back(slot.name, slot_view(params.values, slot));
  optimizer.visit_state([&](const std::string& name, TensorView flat) {
    for (const TrainableSlot& slot : params.slots) tensors.emplace_back(slot.name + "/" + name, slot_view(flat, slot));
  });
  with_place(fmt::format("step {}", step), [&] { require_finite("checkpoint", tensors); });
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
  // In this order a kill leaves at any time a `latest` that names a file which is there and whole.
  write_text_file(folder / kLatest, file.filename().string() + "\n");
  if (is_best) write_file_atomically(folder / kBest, write);
  retention.whole.insert(meta.step);
  remove_old(folder, meta.step, retention);
}

namespace {

CheckpointMeta meta_in(const Hdf5File& h5, const fs::path& file) {
  const int64_t version = h5.read_integer("/meta/format_version");
  if (version != kFormatVersion)
    throw UserError(file.string(), fmt::format("checkpoint format {}, this program reads {}", version, kFormatVersion));
  CheckpointMeta meta;
  meta.rules = Rules::first;  // where no number stands
  visit_meta(meta, [&, reader = MetaReader{h5, file.string()}](const char* name, auto& member, Since since) {
    const std::string path = std::string("/meta/") + name;
    // A field that the version of the file did not know keeps its default.
    if (since == Since::ever || h5.contains(path)) reader.get(path, member);
  });
  return meta;
}

/// A file whose seal was verified with the meta, and whose slots are asked for before any is read.
class StateReader {
 public:
  StateReader(const fs::path& file, const Hdf5File& h5) : file_(file), h5_(h5) {}

  void require(const FlatParams& params) const {
    for (const TrainableSlot& slot : params.slots) require("/pool/" + slot.name, slot.shape);
  }
  void require(const FlatParams& params, Optimizer& optimizer) const {
    optimizer.visit_state([&](const std::string& name, TensorView) {
      for (const TrainableSlot& slot : params.slots) require("/optimizer/" + slot.name + "/" + name, slot.shape);
    });
  }
  void read(FlatParams& params) const {
    for (const TrainableSlot& slot : params.slots) h5_.read("/pool/" + slot.name, slot_view(params.values, slot));
  }
  void read(const FlatParams& params, Optimizer& optimizer) const {
    optimizer.visit_state([&](const std::string& name, TensorView flat) {
      for (const TrainableSlot& slot : params.slots)
        h5_.read("/optimizer/" + slot.name + "/" + name, slot_view(flat, slot));
    });
  }

 private:
  void require(const std::string& path, const Shape& shape) const {
    if (!h5_.contains(path))
      throw UserError(file_.string(), fmt::format("holds no \"{}\"", path),
                      "the checkpoint belongs to another model, adapter or optimizer");
    if (!(h5_.shape_of(path) == shape))
      throw UserError(file_.string(),
                      fmt::format("\"{}\" is {}, expected {}", path, h5_.shape_of(path).text(), shape.text()));
  }

  const fs::path& file_;
  const Hdf5File& h5_;
};

}  // namespace

OpenedCheckpoint::OpenedCheckpoint(const fs::path& file)
    : path_(file), file_(Hdf5File::open(file)), meta_(meta_in(file_, path_)) {}

void OpenedCheckpoint::load_values(FlatParams& params) const {
  const StateReader reader(path_, file_);
  reader.require(params);
  reader.read(params);
}

CheckpointMeta read_checkpoint_meta(const fs::path& file) { return OpenedCheckpoint(file).meta(); }

// All is asked for before anything is read: a checkpoint that does not fit leaves the model as it was.
void load_checkpoint(const fs::path& file, FlatParams& params, Optimizer& optimizer) {
  const Hdf5File h5 = Hdf5File::open(file, false);
  const StateReader reader(file, h5);
  reader.require(params);
  reader.require(params, optimizer);
  reader.read(params);
  reader.read(params, optimizer);
}

namespace {

/// Values as text that is read back to the bit.
struct MetaPacker {
  Json packed = Json::object();
  void put(const char* name, Rules rules) { packed.set(name, static_cast<int64_t>(rules)); }
  void put(const char* name, int64_t value) { packed.set(name, value); }
  void put(const char* name, double value) { packed.set(name, fmt::format("{:a}", value)); }
  void put(const char* name, const std::string& text) { packed.set(name, text); }
  void put(const char* name, const LossSums& sums) {
    Json json = Json::object();
    for (const SumSpec& spec : sum_specs()) json.set(std::string(spec.name), fmt::format("{:a}", sums[spec.name]));
    packed.set(name, json);
  }
  void put(const char* name, const RecipeValues& values) { packed.set(name, to_json(values)); }
};

double number_of(const Json& text) { return std::strtod(text.as_string().c_str(), nullptr); }

struct MetaUnpacker {
  const Json& packed;
  void get(const char* name, Rules& rules) const { rules = rules_of(packed.at(name).as_integer()); }
  void get(const char* name, int64_t& value) const { value = packed.at(name).as_integer(); }
  void get(const char* name, double& value) const { value = number_of(packed.at(name)); }
  void get(const char* name, std::string& text) const { text = packed.at(name).as_string(); }
  void get(const char* name, LossSums& sums) const {
    for (const SumSpec& spec : sum_specs()) sums[spec.name] = number_of(packed.at(name).at(spec.name));
  }
  void get(const char* name, RecipeValues& values) const { values = values_of(packed.at(name)); }
};

}  // namespace

CheckpointMeta receive_checkpoint(const fs::path& file, Communicator& world, FlatParams& params, Optimizer& optimizer) {
  MetaPacker packer;
  if (world.rank() == 0) {
    CheckpointMeta meta = read_checkpoint_meta(file);
    load_checkpoint(file, params, optimizer);
    if (world.size() == 1) return meta;
    visit_meta(meta, [&](const char* name, const auto& member, Since) { packer.put(name, member); });
  }
  const Json packed = Json::parse(broadcast_text(world, packer.packed.dump()), file.string());
  CheckpointMeta meta;
  visit_meta(meta, [&, unpacker = MetaUnpacker{packed}](const char* name, auto& member, Since) {
    unpacker.get(name, member);
  });
  send_numbers(world, params.values);
  optimizer.visit_state([&](const std::string&, TensorView state) { send_numbers(world, state); });
  return meta;
}

std::string values_hash(const FlatParams& params) {
  const OnHost host(params.values);
  return sha256_hex(std::as_bytes(host.as<float>()));
}

std::optional<fs::path> checkpoints_in(const fs::path& folder) {
  for (const fs::path& place : {folder / "checkpoints", folder})
    if (!checkpoint_steps(place).empty()) return place;
  return std::nullopt;
}

std::vector<int64_t> checkpoint_steps(const fs::path& folder) {
  std::vector<int64_t> steps;
  if (!fs::is_directory(folder)) return steps;
  for (const auto& entry : fs::directory_iterator(folder))
    if (const auto step = number_in_name(entry.path().filename().string(), kPrefix, kSuffix);
        step && entry.is_regular_file())
      steps.push_back(*step);
  // As numbers: names of more than eight digits sort otherwise.
  std::sort(steps.rbegin(), steps.rend());
  return steps;
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

CheckpointMeta read_chosen_checkpoint(const fs::path& file) { return OpenedCheckpoint::chosen(file).meta(); }

OpenedCheckpoint OpenedCheckpoint::chosen(const fs::path& file) {
  try {
    return OpenedCheckpoint(file);
  } catch (const UserError& error) {
    const auto named = number_in_name(file.filename().string(), kPrefix, kSuffix);
    for (const int64_t step : checkpoint_steps(file.parent_path())) {
      const fs::path earlier = checkpoint_file(file.parent_path(), step);
      // Only what lies before the named one: a later state is not what was asked for.
      if ((named && step >= *named) || !is_whole(earlier)) continue;
      throw UserError(error.where(), error.message(),
                      "an earlier checkpoint is whole: " + shell_word("run.resume=" + earlier.string()));
    }
    throw UserError(error.where(), error.message(),
                    "no earlier checkpoint beside it is whole: put back a copy, or train anew with run.resume=never");
  }
}

std::optional<fs::path> newest_checkpoint(const fs::path& folder, std::vector<std::string>& notices) {
  std::string damaged;
  for (const int64_t step : checkpoint_steps(folder)) {
    // Not the newest file counts, but the newest that is whole: reading the meta hashes all of it.
    const fs::path file = checkpoint_file(folder, step);
    try {
      read_checkpoint_meta(file);
      return file;
    } catch (const UserError& error) {
      const std::string what = UserError(error.where(), error.message()).what();
      damaged += what + "\n";
      notices.push_back(what + "\n  this checkpoint is skipped");
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

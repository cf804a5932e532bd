#include "train/spsa/figures.h"

#include <algorithm>

#include "core/error.h"
#include "io/files.h"
#include "io/json_file.h"

namespace tessera {
namespace fs = std::filesystem;
namespace {

fs::path file_in(const fs::path& run) { return run / kFiguresFile; }

}  // namespace

Json figures_of(const CheckpointMeta& meta) {
  // Sums, not figures: a run that goes on adds to them and loses nothing by rounding.
  return Json::object()
      .set("step", meta.step)
      .set("rows_consumed", meta.rows_consumed)
      .set("eval_set", meta.eval_set)
      .set("evaluated_at", meta.evaluated_at)
      .set("best_loss", meta.best_loss)
      .set("first_eval", to_json(meta.first_eval))
      .set("last_eval", to_json(meta.last_eval));
}

CheckpointMeta meta_of_figures(const Json& figures) {
  CheckpointMeta meta;
  meta.step = figures.at("step").as_integer();
  meta.rows_consumed = figures.at("rows_consumed").as_integer();
  meta.eval_set = figures.at("eval_set").as_string();
  meta.evaluated_at = figures.at("evaluated_at").as_integer();
  if (const Json* best = figures.find("best_loss")) meta.best_loss = best->as_number();
  meta.first_eval = loss_sums_of(figures.at("first_eval"));
  meta.last_eval = loss_sums_of(figures.at("last_eval"));
  return meta;
}

void keep_figures(const fs::path& run, const CheckpointMeta& meta) {
  write_text_file(file_in(run), figures_of(meta).dump(1) + "\n");
}

std::optional<CheckpointMeta> read_figures(const fs::path& run, int64_t last_step) {
  const fs::path file = file_in(run);
  if (!fs::exists(file)) return std::nullopt;
  CheckpointMeta meta;
  try {
    meta = meta_of_figures(read_configuration(file));
  } catch (const UserError&) {  // what it held is measured again, as where it is absent
    return std::nullopt;
  }
  // A log that lost its end goes back: what was measured behind it is of weights that are made again.
  if (meta.step > last_step) meta.step = meta.rows_consumed = 0;
  if (meta.evaluated_at > last_step) {
    meta.evaluated_at = -1;
    meta.last_eval = {};
    meta.best_loss = CheckpointMeta{}.best_loss;
  }
  return meta;
}

// Of each round as many machines read as voted, which only its record knows: they come and go.
RoundsRead rows_read(const StepLog& log, int64_t from, int64_t rows_of_machine) {
  RoundsRead read;
  log.for_each(log.first_index(), [&](const Record& record, std::span<const std::byte>) {
    if (record.type != RecordType::round || record.round < from) return true;
    ++read.rounds;
    // A lane that is present is a machine that voted, and so has read its rows of the round.
    read.rows += std::count(record.present.begin(), record.present.end(), true) * rows_of_machine;
    return true;
  });
  return read;
}

}  // namespace tessera

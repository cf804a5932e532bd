// metrics.jsonl is written behind the log. A process that died in between has rounds in its log that no line tells of:
// these lines are made from the records, marked "from_log", with what records know.

#include "train/spsa/told_metrics.h"

#include <cmath>

#include "core/error.h"
#include "io/json_file.h"
#include "score/evaluation.h"
#include "train/run_folder.h"

namespace tessera {
namespace {

Json line_of(const Record& record, int64_t bytes_per_probe) {
  double loss = 0;
  for (const uint16_t bits : record.losses)
    loss += static_cast<double>(to_float(Float16{bits})) / static_cast<double>(record.losses.size());
  return Json::object()
      .set("step", int64_t{record.round} + 1)
      .set("split", "train")
      .set("loss", record.losses.empty() ? std::nan("") : loss)
      .set("votes", static_cast<int64_t>(record.bytes.size()) / bytes_per_probe)
      .set("alpha", static_cast<double>(record.alpha))
      .set("from_log", true);
}

}  // namespace

ToldMetrics read_told_metrics(const std::filesystem::path& file, int64_t last_step, const Objective& objective) {
  ToldMetrics told;
  CheckpointMeta& meta = told.meta;
  with_mend(file, "remove it: the rounds are told again from the log, without the evaluations", [&] {
    for (const Json& line : MetricsFile(file).lines()) {
      const Json* step = line.find("step");
      // Events have no figures, and lines beyond the log's end are of rounds that are made again.
      if (line.find("event") || !step || step->as_integer() > last_step) continue;
      if (line.at("split").as_string() == "train") {
        told.last_step = step->as_integer();
        meta.seconds += line.find("step_seconds") ? line.at("step_seconds").as_number() : 0;
        meta.last_loss = line.find("loss") ? line.at("loss").as_number() : std::nan("");
        continue;
      }
      meta.last_eval = sums_told(line, objective);
      // The first evaluation, and each that begins a new comparison, is what later ones are compared with.
      if (meta.evaluated_at < 0 || line.find("before")) {
        meta.first_eval = meta.last_eval;
        meta.best_loss = CheckpointMeta{}.best_loss;
      }
      if (const Json* loss = line.find("loss")) meta.best_loss = std::min(meta.best_loss, loss->as_number());
      meta.evaluated_at = told.last_evaluation = step->as_integer();
    }
  });
  return told;
}

std::vector<Json> untold_rounds(const StepLog& log, int64_t told, int64_t bytes_per_probe) {
  std::vector<Json> lines;
  log.for_each(log.first_index(), [&](const Record& record, std::span<const std::byte>) {
    if (record.type == RecordType::round && record.round >= told) lines.push_back(line_of(record, bytes_per_probe));
    return true;
  });
  return lines;
}

}  // namespace tessera

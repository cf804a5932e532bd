#include "cli/jobs/generate_report.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "cli/jobs/generate_config.h"
#include "cli/notices.h"
#include "core/json.h"
#include "core/out_of_memory.h"
#include "io/files.h"
#include "kernels/product_rate.h"
#include "kernels/read_rate.h"

namespace tessera {
namespace {

/// "40 s", "12 min", "3.5 h"
std::string time_in_words(double seconds) {
  if (seconds < 90) return fmt::format("{:.0f} s", std::ceil(seconds));
  if (seconds < 90 * 60) return fmt::format("{:.0f} min", std::ceil(seconds / 60));
  return fmt::format("{:.1f} h", seconds / 3600);
}

/// Why log-probabilities may not be those of training and evaluation, to the bit; nothing when they are.
std::string why_not_equal(const GenerateConfig& g) {
  if (!g.deterministic) return "generate.deterministic is false";
  if (g.kv_dtype != "auto" && g.kv_dtype != "f32") return "generate.kv_dtype is " + g.kv_dtype;
  return "";
}

/// A prefix of null: the joint form is never taken.
Json crossover_of(const EngineCounts& counts) {
  Json points = Json::array();
  for (const auto& [rows, prefix] : counts.crossover)
    if (rows > 0)
      points.push_back(
          Json::object().set("rows", rows).set("prefix", prefix == Crossover::kNever ? Json() : Json(prefix)));
  return points;
}

}  // namespace

double GenerateProgress::seconds() const { return std::chrono::duration<double>(Clock::now() - begin_).count(); }

double tokens_left(const Planned& planned, const EngineCounts& counts) {
  const double prompts = static_cast<double>(std::max<int64_t>(0, planned.to_compute - counts.schedule.computed));
  const double requests = static_cast<double>(std::max<int64_t>(1, planned.statistics.requests));
  const double waiting = planned.expected_new * (1 - static_cast<double>(counts.finished) / requests);
  return prompts + std::clamp(planned.expected_new - static_cast<double>(counts.generated), 0.0, waiting);
}

void GenerateProgress::show(const EngineCounts& counts) {
  constexpr std::chrono::seconds kEvery{5};
  const auto now = Clock::now();
  if (now - shown_ < kEvery) return;
  shown_ = now;
  const double seconds = this->seconds(), computed = static_cast<double>(counts.schedule.computed),
               generated = static_cast<double>(counts.generated);
  const double left = tokens_left(planned_, counts) / std::max(1.0, computed + generated) * seconds;
  tell(in_, fmt::format("{} of {} requests, {} of {} prompt tokens computed, {:.1f} tokens/s computed, {:.1f} new "
                        "tokens/s, {} of {} pages, about {} left",
                        counts.finished, planned_.statistics.requests, counts.schedule.computed, planned_.to_compute,
                        computed / seconds, generated / seconds, counts.pages_in_use, counts.pages_total,
                        time_in_words(left)));
}

MachineRates measure_rates(const JobInputs& in, const Context* ctx, const LeastTime* work, const BatchPlan& plan) {
  constexpr double kSeconds = 0.1, kLongEnough = 10;
  // Of a fast machine: where the batch takes ten seconds by these, measuring for a fifth of one is little.
  const MachineRates fast{1.5e11 * in.threads, 1e11};
  std::array<double, 1> pays{work && work->expected_seconds(plan, fast) >= kLongEnough ? 1.0 : 0.0};
  in.world.all_reduce_max(std::span<double>(pays));
  if (pays[0] == 0) return {};
  in.world.barrier();
  if (!ctx || ctx->device.kind != Device::Kind::cpu) return {};
  try {
    return {limit_rate(*ctx, kSeconds), read_rate(*ctx, kSeconds)};
  } catch (const OutOfMemory&) {  // a figure is not worth a run
  } catch (const std::bad_alloc&) {
  }
  return {};
}

void write_report(const JobInputs& in, const std::filesystem::path& run, const GenerateReport& report) {
  const EngineCounts& counts = report.counts;
  const auto a_second = [&](int64_t tokens) { return static_cast<double>(tokens) / report.seconds; };
  const Json tokens = Json::object()
                          .set("logical", report.statistics.logical)
                          .set("computed", counts.schedule.computed)
                          .set("reused_batch", report.statistics.logical - counts.schedule.computed)
                          .set("recomputed", counts.schedule.recomputed)
                          .set("generated", counts.generated)
                          .set("scored", counts.scored);
  Json json = Json::object()
                  .set("requests", counts.finished)
                  .set("failed", counts.failed)
                  .set("tokens", tokens)
                  .set("pages_peak", counts.pages_peak)
                  .set("pages_total", counts.pages_total)
                  .set("seconds", report.seconds)
                  .set("planning_seconds", counts.planning_seconds)
                  .set("steps", counts.schedule.steps)
                  .set("preemptions", counts.schedule.preemptions)
                  .set("prefill_tokens_per_second", a_second(counts.schedule.computed))
                  .set("new_tokens_per_second", a_second(counts.generated));
  if (report.optimum_seconds > 0)
    json.set("optimum_seconds", report.optimum_seconds).set("achieved", report.optimum_seconds / report.seconds);
  const std::string unequal = why_not_equal(config_of(in));
  json.set("deterministic", config_of(in).deterministic)
      .set("log_probability_equals_training", unequal.empty() ? Json(true) : Json(unequal))
      .set("kv_bytes_read", counts.kv_bytes_read)
      .set("crossover", crossover_of(counts))
      .set("ranks", report.ranks)
      .set("journal", Json::object().set("resumed", report.resumed));
  write_text_file(run / "generate_report.json", json.dump(2) + "\n");
  if (report.optimum_seconds > 0)
    tell(in, fmt::format("{:.1f} s, {:.0f} % of what the machine could do at best", report.seconds,
                         100 * report.optimum_seconds / report.seconds));
}

}  // namespace tessera

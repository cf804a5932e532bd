#include "cli/list_kind.h"

#include "cli/jobs.h"
#include "core/device/memory.h"
#include "core/error.h"
#include "model/model_config.h"
#include "score/metrics/metric.h"
#include "score/objective.h"
#include "steplog/transport.h"
#include "train/estimator.h"
#include "train/optimizers/optimizer.h"

namespace tessera {
namespace {

struct Entry {
  std::string name, help;
};

template <class T> std::vector<Entry> entries_of(const std::vector<T>& registry) {
  std::vector<Entry> entries;
  entries.reserve(registry.size());
  for (const T& each : registry) entries.push_back({std::string(each.name), std::string(each.help)});
  return entries;
}

/// A metric is described by the figures that it gives.
std::vector<Entry> metric_entries() {
  std::vector<Entry> entries;
  for (const Metric& metric : metrics()) {
    std::string figures;
    for (const FigureSpec& figure : metric.figures)
      figures += fmt::format("{}{}{}", figures.empty() ? "" : ", ", figure.key,
                             figure.words == figure.key ? "" : fmt::format(" ({})", figure.words));
    entries.push_back({std::string(metric.name), figures});
  }
  return entries;
}

struct Listed {
  std::string_view kind;
  std::vector<Entry> (*entries)();
};

constexpr Listed kListed[] = {
    {"jobs", [] { return entries_of(jobs()); }},
    {"adapters", [] { return entries_of(adapter_methods()); }},
    {"sharing", [] { return entries_of(sharing_methods()); }},
    {"optimizers", [] { return entries_of(optimizer_kinds()); }},
    {"estimators", [] { return entries_of(estimator_kinds()); }},
    {"objectives", [] { return entries_of(objectives()); }},
    {"metrics", metric_entries},
    {"transports", [] { return entries_of(transports()); }},
    {"models", [] { return entries_of(model_families()); }},
    {"devices", [] { return entries_of(device_kinds()); }},
};

}  // namespace

std::string listed_kinds() {
  std::string names;
  for (const Listed& listed : kListed) names += fmt::format("{}{}", names.empty() ? "" : ", ", listed.kind);
  return names;
}

std::string list_kind(const std::string& kind) {
  for (const Listed& listed : kListed) {
    if (listed.kind != kind) continue;
    std::string text;
    for (const auto& [name, help] : listed.entries())
      text += help.empty() ? name + "\n" : fmt::format("{:<12} {}\n", name, help);
    return text;
  }
  throw UserError("command line", fmt::format("--list \"{}\" is not known", kind), "kinds: " + listed_kinds());
}

}  // namespace tessera

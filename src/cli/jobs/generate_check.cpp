#include "cli/jobs/generate_check.h"

#include "core/error.h"

namespace tessera {

void tell_figures(const RequestFile& file, const GenerateFigures& figures, JobPlan& plan) {
  const PrefixStatistics& s = figures.statistics;
  const EngineMemory& memory = figures.memory;
  const int64_t pages = memory.bundles * figures.pages_per_bundle,
                peak = memory.peak_bundles * figures.pages_per_bundle, left = std::ssize(file.lines) - figures.done;
  plan.notes.push_back(fmt::format(
      "{} requests in {} groups ({:.1f} each, {} levels): {:.1f} tokens of a prompt are shared, {:.1f} its own",
      s.requests, s.groups, s.sharing_degree(), s.levels, s.prefix_mean(), s.distinct_mean()));
  plan.notes.push_back(
      fmt::format("{} tokens of prompts, {} to compute: {:.1f} % saved; at most {} new ones; {} comparisons", s.logical,
                  s.physical, s.saving(), figures.new_tokens, s.comparisons));
  plan.notes.push_back(
      fmt::format("{} pages, of which {} are used at most, in bundles of {}, {} each: {}; a pass takes {}", pages, peak,
                  figures.pages_per_bundle, megabytes(memory.bundle_bytes), megabytes(memory.page_bytes()),
                  megabytes(memory.pass_bytes)));
  if (figures.ranks > 1)
    plan.notes.push_back(fmt::format("{} ranks share the requests, and compute {} tokens of prompts together",
                                     figures.ranks, figures.to_compute));
  if (figures.done > 0)
    plan.notes.push_back(fmt::format("{} of {} are answered, and {} are left", figures.done, file.lines.size(), left));
  const int64_t adapter = plan.model->adapter() ? plan.model->pool().trainable().values.bytes() : 0;
  plan.told.set("requests", s.requests)
      .set("kind", std::string(name_of(file.kind)))
      .set("tokens", Json::object()
                         .set("logical", s.logical)
                         .set("physical", s.physical)
                         .set("saving", s.saving())
                         .set("new", figures.new_tokens))
      .set("groups", s.groups)
      .set("sharing_degree", s.sharing_degree())
      .set("prefix_mean", s.prefix_mean())
      .set("distinct_mean", s.distinct_mean())
      .set("levels", s.levels)
      .set("pages_peak", peak)
      .set("pages_total", pages)
      .set("page_bytes", memory.bundle_bytes / figures.pages_per_bundle)
      .set("comparisons", s.comparisons)
      .set("done", figures.done)
      .set("left", left);
  plan.told_bytes.set("weights", plan.memory.mapped + plan.memory.weights_and_gradients - adapter)
      .set("adapters", adapter)
      .set("pages_peak", memory.peak_bundles * memory.bundle_bytes)
      .set("scratch", memory.pass_bytes);
}

}  // namespace tessera

// --check and --show-batch: what a run would do, before it does it.

#include <set>

#include "cli/outputs.h"
#include "cli/plan.h"
#include "cli/preflight.h"
#include "cli/rates.h"
#include "cli/results.h"
#include "io/output.h"

namespace tessera {

int check_job(const JobInputs& in, bool as_json) {
  require_free_outputs(in);
  Model model(model_settings(in, in.config.trainer.train.sequence_length));
  start_from_saved_adapter(in.config, model);
  preflight(in, model);
  const MemoryPlan memory = plan_memory(in, model);
  if (in.world.rank() != 0) return kDone;
  const int64_t trained = model.pool().trainable_count(), physical = trained + model.pool().frozen_count(),
                virtual_count = model.virtual_parameters();
  const Footprint bytes = footprint(model, memory);
  if (as_json) {
    Json notes = Json::array();
    for (const std::string& note : model.notes()) notes.push_back(note);
    print_out("{}\n", Json::object()
                          .set("parameters", Json::object()
                                                 .set("trained", trained)
                                                 .set("frozen", model.pool().frozen_count())
                                                 .set("virtual", virtual_count))
                          .set("weights", Json::object().set("physical", physical).set("virtual", virtual_count))
                          .set("bytes_per_rank", memory.owned())
                          .set("bytes", Json::object()
                                            .set("mapped", memory.mapped)
                                            .set("weights_and_gradients", memory.weights_and_gradients)
                                            .set("optimizer", memory.optimizer)
                                            .set("activations", memory.activations)
                                            .set("assembled", memory.assembled)
                                            .set("held_bytes", bytes.held)
                                            .set("dense_bytes", bytes.dense))
                          .set("wire_bytes_per_step", wire_bytes_per_step(in, model))
                          .set("notes", notes)
                          .set("ranks", in.world.size())
                          .set("threads", in.threads)
                          .dump());
    return kDone;
  }
  print_out("parameters       trained {}, frozen {}, virtual {}\n", trained, model.pool().frozen_count(),
            virtual_count);
  if (virtual_count > physical)
    print_out("against dense    {} of weights, gradients and moments; each weight for itself: {} ({:.1f} %)\n",
              megabytes(bytes.held), megabytes(bytes.dense),
              100 * static_cast<double>(bytes.held) / static_cast<double>(bytes.dense));
  print_out("memory a rank    {}: weights and gradients {}, optimizer {}, activations {}, assembled adapter {}\n",
            megabytes(memory.owned()), megabytes(memory.weights_and_gradients), megabytes(memory.optimizer),
            megabytes(memory.activations), megabytes(memory.assembled));
  print_out("mapped           {} a machine, shared by its ranks\n", megabytes(memory.mapped));
  print_out("sent             {} a step and rank: {}\n", megabytes(wire_bytes_per_step(in, model)),
            in.config.trainer.train.estimator == "spsa" ? "one vote" : "gradients");
  const OptimizerConfig& optimizer = in.config.trainer.optimizer;
  const auto steps = in.config.trainer.train.steps;
  if (in.config.job == "train") print_out("learning rate    {}\n", rates_in_words(optimizer, steps));
  print_out("ranks, threads   {} x {}\n", in.world.size(), in.threads);
  for (const std::string& note : model.notes()) print_out("{}\n", note);
  if (const std::string notice = length_notice(model, "rows", in.config.trainer.train.sequence_length); !notice.empty())
    print_out("{}\n", notice);
  if (const std::string notice = steps ? schedule_notice(optimizer, *steps, kNewestRules) : "";
      in.config.job == "train" && !notice.empty())
    print_out("{}\n", notice);
  print_out("the recipe is in order\n");
  return kDone;
}

int show_batch(const JobInputs& in) {
  const Datasets sets = load_datasets(in, true);
  if (in.world.rank() != 0) return kDone;
  for (const std::string& notice : sets.notices) tell(in, notice);
  const auto rows = step_rows(*sets.train, 0, {0, in.config.trainer.train.batch});
  const PackedBatch batch = sets.train->batch(rows, 0);
  std::set<int64_t> documents;
  for (const TokenRange& piece : batch.documents) documents.insert(piece.document);
  print_out("the first batch: {} rows of {} tokens, {} documents{}, {} scored tokens. [scored] text is in brackets.\n",
            batch.rows, batch.sequence_length, documents.size(),
            documents.size() < batch.documents.size() ? fmt::format(" in {} pieces", batch.documents.size()) : "",
            batch.scored());
  int64_t row = -1;
  for (const TokenRange& document : batch.documents) {
    if (const int64_t at = document.begin / batch.sequence_length; at != row) print_out("-- row {}\n", row = at);
    std::string text;
    // A token is scored as the target of the position before it.
    for (int64_t begin = document.begin; begin < document.end;) {
      const auto is_scored = [&](int64_t t) { return t > document.begin && batch.labels[t - 1] >= 0; };
      int64_t end = begin + 1;
      while (end < document.end && is_scored(end) == is_scored(begin)) ++end;
      const std::string piece = sets.tokenizer.decode(std::span(batch.ids).subspan(begin, end - begin));
      text += is_scored(begin) ? "[" + piece + "]" : piece;
      begin = end;
    }
    const char* mark = document.choice < 0 ? "" : document.answer ? "right  " : "wrong  ";
    print_out("   {:>5}..{:<5} {}{}\n", document.begin % batch.sequence_length,
              (document.end - 1) % batch.sequence_length + 1, mark, text);
  }
  return kDone;
}

}  // namespace tessera

#include "cli/show_batch.h"

#include <set>

#include "cli/datasets.h"
#include "cli/notices.h"
#include "core/error.h"
#include "io/output.h"

namespace tessera {

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

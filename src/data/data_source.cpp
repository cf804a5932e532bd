// A split is a file and a rule that says of each document whether it belongs: training and held-out documents may come
// from one file, and are told apart each time that it is read, by a hash of their text.

#include "data/data_source.h"

#include <cmath>

#include "core/error.h"
#include "core/random.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

std::string_view content(const DataSource& source) {
  return {reinterpret_cast<const char*>(source.mapped->bytes().data()), source.mapped->bytes().size()};
}

bool takes(const DataSource& source, const TextExample& document) {
  const double fraction = source.eval_fraction;
  return fraction == 0 || is_held_out(document, fraction) == (source.split == Split::eval);
}

}  // namespace

bool is_held_out(const TextExample& document, double eval_fraction) {
  uint64_t hash = fnv1a(document.prompt.data(), document.prompt.size());
  // Keeps prompt and completion apart: moving text from one to the other gives another document.
  hash = fnv1a("\0", 1, hash);
  hash = fnv1a(document.completion.data(), document.completion.size(), hash);
  // Mixed, the hash is uniform in [0, 2^64): the fraction of that range is the fraction of the documents.
  return static_cast<double>(mix64(hash)) < std::ldexp(eval_fraction, 64);
}

DataSource open_source(const DataConfig& config, Split split) {
  if (split == Split::eval && !config.has_eval())
    throw UserError("data.eval", "there is no held-out data",
                    "name a file, or set data.eval_fraction to hold out a part of data.train");
  const bool own_file = split == Split::eval && !config.eval.empty();
  const fs::path& file = own_file ? config.eval : config.train;
  if (file.empty()) throw UserError("data.train", "no file is named", "name a .jsonl file or a text file");
  if (config.has_choices() && !is_jsonl(file))
    throw UserError(file.string(), "data.label_words is set, and a text file has no labels",
                    "give a .jsonl file whose records have a label, or leave data.label_words out");
  DataSource source{file, MappedFile::open(file), split, config.eval.empty() ? config.eval_fraction : 0.0, ""};
  if (!is_jsonl(file)) source.notice = look_at_text(file, content(source));
  return source;
}

void DataSource::for_each(const DataConfig& config, const std::function<bool(TextExample)>& use) const {
  for_each_document(file, content(*this), config,
                    [&](TextExample document) { return !takes(*this, document) || use(std::move(document)); });
}

void throw_no_document(const DataSource& source) {
  const char* part = source.split == Split::eval ? "held-out" : "training";
  if (source.eval_fraction == 0) throw UserError(source.file.string(), "no document has a token to score");
  throw UserError(source.file.string(), fmt::format("no document falls into the {} part", part),
                  fmt::format("data.eval_fraction = {} draws documents by their hash; a text file is one document\n"
                              "name a file with data.eval, or use more documents",
                              source.eval_fraction));
}

std::vector<TextExample> load_examples(const DataConfig& config, Split split, int64_t limit) {
  const DataSource source = open_source(config, split);
  std::vector<TextExample> examples;
  source.for_each(config, [&](TextExample document) {
    examples.push_back(std::move(document));
    return limit == 0 || static_cast<int64_t>(examples.size()) < limit;
  });
  return examples;
}

}  // namespace tessera

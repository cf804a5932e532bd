#pragma once
// Where a split's documents come from: a file, and which of its documents belong to the split.

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/data_config.h"
#include "data/jsonl.h"
#include "io/mapped_file.h"

namespace tessera {

enum class Split { train, eval };

/// Whether the document is in the held-out part: a function of its text alone, so copies of a document never part.
bool is_held_out(const TextExample&, double eval_fraction);

/// A split's file, open.
struct DataSource {
  std::filesystem::path file;
  std::shared_ptr<const MappedFile> mapped;
  Split split;
  double eval_fraction;  // 0: all documents
  std::string notice;    // a text file that could have been meant otherwise; empty: none

  /// Calls `use` with each document of the split in order until it returns false.
  /// @throws UserError as for_each_document
  void for_each(const DataConfig&, const std::function<bool(TextExample)>& use) const;
};

/// @throws UserError when the split has no file, or one that has no labels where they are asked for
DataSource open_source(const DataConfig&, Split);

/// Of a split that has no document, or none with a token to score.
[[noreturn]] void throw_no_document(const DataSource&);

/// The documents of the split as text, for generation: prompt and completion after templates, in the file's order.
/// @param limit  how many at most; 0: all
std::vector<TextExample> load_examples(const DataConfig&, Split, int64_t limit);

}  // namespace tessera

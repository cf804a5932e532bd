#include "data/preparation.h"

#include <algorithm>
#include <future>

#include "core/error.h"
#include "core/stop.h"
#include "data/encoding.h"

namespace tessera {
namespace {

/// Gathers documents and encodes them a batch at a time on all threads; the order of the tokens is that of the
/// documents.
class Preparation {
 public:
  Preparation(const Tokenizer& tokenizer, const DataConfig& config, int threads)
      : tokenizer_(tokenizer), config_(config), threads_(static_cast<size_t>(threads)) {
    data_.choices = static_cast<int64_t>(config.label_words.size());
  }

  void add(TextExample document) {
    waiting_bytes_ += document.prompt.size() + document.completion.size();
    waiting_.push_back(std::move(document));
    if (waiting_bytes_ >= kBatchBytes) encode_waiting();
  }
  TokenData finish() {
    encode_waiting();
    // Left out where the marks say the same: files of most data have no such column.
    if (marks_tell_prompts(data_, tokenizer_)) data_.has_prompt.clear();
    return std::move(data_);
  }
  int64_t skipped() const { return skipped_; }

 private:
  // Of text: enough for all threads, and small beside the tokens that are kept.
  static constexpr size_t kBatchBytes = size_t{4} << 20;

  void encode_waiting() {
    leave_if_asked("preparing data");
    std::vector<std::vector<EncodedExample>> encoded(waiting_.size());
    // At least 64 documents a thread, or starting it costs more than it saves.
    const size_t threads = std::clamp<size_t>(waiting_.size() / 64, 1, threads_);
    std::vector<std::future<void>> workers;
    for (size_t t = 0; t < threads; ++t)
      // Deferred where no more threads can be started: get() then does the work.
      workers.push_back(std::async(std::launch::async | std::launch::deferred, [&, t] {
        // Every threads-th document, so that a stretch of long ones is shared out.
        for (size_t i = t; i < waiting_.size(); i += threads)
          encoded[i] = encode_documents(tokenizer_, config_, waiting_[i]);
      }));
    // An error of a worker is thrown here.
    for (std::future<void>& worker : workers) worker.get();
    // In the order of the documents, whoever encoded them.
    for (size_t i = 0; i < waiting_.size(); ++i) append(encoded[i], waiting_[i].choice);
    waiting_.clear();
    waiting_bytes_ = 0;
  }
  // Even a text without a prompt has a first token, which nothing predicts.
  static int64_t first_scored(const EncodedExample& document) { return std::max<int64_t>(document.prompt_tokens, 1); }
  /// Whether there is something to score; of choices all words, from their first token on.
  bool is_usable(const std::vector<EncodedExample>& documents) const {
    const EncodedExample& first = documents.front();
    return data_.choices > 0 ? first.prompt_tokens > 0
                             : static_cast<int64_t>(first.tokens.size()) > first_scored(first);
  }
  void append(const std::vector<EncodedExample>& documents, int32_t answer) {
    if (!is_usable(documents)) {
      ++skipped_;
      return;
    }
    for (const EncodedExample& document : documents) append(document);
    if (data_.choices > 0) data_.answers.push_back(answer);
  }
  void append(const EncodedExample& example) {
    const int64_t count = static_cast<int64_t>(example.tokens.size()), first = first_scored(example);
    data_.tokens.insert(data_.tokens.end(), example.tokens.begin(), example.tokens.end());
    data_.scored.insert(data_.scored.end(), static_cast<size_t>(first), 0);
    data_.scored.insert(data_.scored.end(), static_cast<size_t>(count - first), 1);
    data_.ends.push_back(static_cast<int64_t>(data_.tokens.size()));
    data_.has_prompt.push_back(example.has_prompt);
  }

  const Tokenizer& tokenizer_;
  const DataConfig& config_;
  const size_t threads_;
  std::vector<TextExample> waiting_;
  size_t waiting_bytes_ = 0;
  TokenData data_;
  int64_t skipped_ = 0;
};

}  // namespace

bool marks_tell_prompts(const TokenData& data, const Tokenizer& tokenizer) {
  // One token in front is what the marks mean by default; several look like a prompt.
  if (!tokenizer.front().empty()) return tokenizer.front().size() == 1;
  for (int64_t d = 0, begin = 0; d < data.documents(); begin = data.ends[d++])
    if (begin + 1 < data.ends[d] && data.scored[begin + 1]) return false;
  return true;
}

PreparedData prepare(const DataSource& source, const Tokenizer& tokenizer, const DataConfig& config, int threads) {
  require_distinct_words(tokenizer, config);
  Preparation preparation(tokenizer, config, threads);
  source.for_each(config, [&](TextExample document) {
    preparation.add(std::move(document));
    return true;
  });
  PreparedData prepared{preparation.finish(), preparation.skipped()};
  // Mapped bytes change with the file: what was tokenized may be half of one version and half of another.
  if (source.mapped->change() == MappedFile::Change::altered)
    throw UserError(source.file.string(), "was written to while it was read", "start again when it is whole");
  if (prepared.data.documents() == 0) throw_no_document(source);
  return prepared;
}

TokenData load_sample(const DataConfig& config, const Tokenizer& tokenizer, Split split, int64_t documents,
                      bool& whole) {
  constexpr size_t kLongest = size_t{1} << 20;
  const DataSource source = open_source(config, split);
  require_distinct_words(tokenizer, config);
  Preparation preparation(tokenizer, config, 1);
  int64_t taken = 0;
  whole = true;
  source.for_each(config, [&](TextExample document) {
    if (taken == documents) return whole = false;
    if (document.completion.size() > kLongest) {
      whole = false;
      size_t end = kLongest;
      while ((static_cast<unsigned char>(document.completion[end]) & 0xc0) == 0x80) --end;  // not inside a character
      document.completion.resize(end);
    }
    preparation.add(std::move(document));
    ++taken;
    return true;
  });
  TokenData data = preparation.finish();
  if (data.documents() == 0 && whole) throw_no_document(source);
  return data;
}

}  // namespace tessera

#include "data/token_file.h"

#include <algorithm>
#include <cmath>
#include <future>
#include <mutex>
#include <optional>
#include <string_view>
#include <thread>

#include "core/error.h"
#include "core/random.h"
#include "core/stop.h"
#include "io/files.h"
#include "io/hdf5_file.h"
#include "io/mapped_file.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

/// Part of every cache key: raised when the layout changes.
constexpr int64_t kFormatVersion = 1;
/// Part of the file's name only: raised when the rules of reading give some sources other tokens. A run's checkpoints keep the
/// data's hash, which says what was read and not by which rules.
constexpr int64_t kReading = 2;
constexpr const char* kFormatName = "tessera tokens";

/// The file a split is read from, and which of its documents belong to it.
struct Source {
  fs::path file;
  std::shared_ptr<const MappedFile> mapped;
  Split split;
  double eval_fraction;  // 0: all documents
  std::string notice;

  std::string_view content() const {
    return {reinterpret_cast<const char*>(mapped->bytes().data()), mapped->bytes().size()};
  }
  bool takes(const TextExample& document) const {
    return eval_fraction == 0 || is_held_out(document, eval_fraction) == (split == Split::eval);
  }
};

Source open_source(const DataConfig& config, Split split) {
  if (split == Split::eval && !config.has_eval())
    throw UserError("data.eval", "there is no held-out data",
                    "name a file, or set data.eval_fraction to hold out a part of data.train");
  const bool own_file = split == Split::eval && !config.eval.empty();
  const fs::path& file = own_file ? config.eval : config.train;
  if (file.empty()) throw UserError("data.train", "no file is named", "name a .jsonl file or a text file");
  if (config.has_choices() && !is_jsonl(file))
    throw UserError(file.string(), "data.label_words is set, and a text file has no labels",
                    "give a .jsonl file whose records have a label, or leave data.label_words out");
  Source source{file, MappedFile::open(file), split, config.eval.empty() ? config.eval_fraction : 0.0, ""};
  if (!is_jsonl(file)) source.notice = look_at_text(file, source.content());
  return source;
}

[[noreturn]] void fail_empty(const Source& source) {
  const char* part = source.split == Split::eval ? "held-out" : "training";
  if (source.eval_fraction == 0) throw UserError(source.file.string(), "no document has a token to score");
  throw UserError(source.file.string(), fmt::format("no document falls into the {} part", part),
                  fmt::format("data.eval_fraction = {} draws documents by their hash; a text file is one document\n"
                              "name a file with data.eval, or use more documents",
                              source.eval_fraction));
}

/// All that decides a token file's contents, one thing a line; kept in the file.
std::string recipe_of(const Source& source, const DataConfig& config, const Tokenizer& tokenizer) {
  std::string text = fmt::format("{} {}\nsource {}\ntokenizer {:016x}\n", kFormatName, kFormatVersion,
                                 sha256_hex(source.mapped->bytes()), tokenizer.fingerprint());
  if (source.eval_fraction > 0)
    text += fmt::format("{} part at {}\n", source.split == Split::eval ? "held-out" : "training", source.eval_fraction);
  if (!is_jsonl(source.file)) return text + "text\n";
  // Lengths keep two settings apart whose texts run together the same way.
  for (const std::string* setting : {&config.text_field, &config.prompt_field, &config.completion_field,
                                     &config.prompt_template, &config.completion_template})
    text += fmt::format("{} {}\n", setting->size(), *setting);
  text += fmt::format("jsonl, documents {}\n", config.max_documents);
  if (!config.has_choices()) return text;
  text += fmt::format("choices {}\n{} {}\n", config.label_words.size(), config.label_field.size(), config.label_field);
  for (size_t choice = 0; choice < config.label_words.size(); ++choice)
    for (const std::string& part : {config.label(choice), config.label_words[choice]})
      text += fmt::format("{} {}\n", part.size(), part);
  return text;
}

fs::path cache_path(const DataConfig& config, const std::string& key) {
  return config.cache / fmt::format("tokens-{:.32}-{}.h5", key, kReading);
}

/// The file of the same data by the first rules of reading, which had no number.
fs::path first_cache_path(const DataConfig& config, const std::string& key) {
  return config.cache / fmt::format("tokens-{:.32}.h5", key);
}

Tokenizer::Special special_mode(const DataConfig& config) {
  return config.has_template() ? Tokenizer::Special::parse : Tokenizer::Special::plain;
}

/// The tokens of a text that stands behind other text.
std::vector<int32_t> encode_continuation(const Tokenizer& tokenizer, const std::string& text,
                                         Tokenizer::Special special) {
  const std::vector<int32_t> front = tokenizer.encode("\n", special);
  std::vector<int32_t> joined = tokenizer.encode("\n" + text, special);
  const bool is_prefix = front.size() <= joined.size() && std::equal(front.begin(), front.end(), joined.begin());
  // Where the line break merges with the text, the tokenizer is a byte-level one, whose beginnings are like any other place.
  if (!is_prefix) return tokenizer.encode(text, special);
  joined.erase(joined.begin(), joined.begin() + static_cast<ptrdiff_t>(front.size()));
  return joined;
}

/// How many tokens at the end of `left` are those at the beginning of `right`.
size_t overlap(std::span<const int32_t> left, std::span<const int32_t> right) {
  size_t count = std::min(left.size(), right.size());
  while (!std::equal(left.end() - static_cast<ptrdiff_t>(count), left.end(), right.begin())) --count;
  return count;
}

/// Appends `added`. A template may have spelled what the tokenizer adds: what is there from `begin` on is not repeated.
void append_once(std::vector<int32_t>& tokens, size_t begin, std::span<const int32_t> added,
                 Tokenizer::Special special) {
  const bool may_be_there = special == Tokenizer::Special::parse;
  const size_t there = may_be_there ? overlap(std::span<const int32_t>(tokens).subspan(begin), added) : 0;
  tokens.insert(tokens.end(), added.begin() + static_cast<ptrdiff_t>(there), added.end());
}

/// Adds the completion and EOS to an encoded prompt.
void append_completion(const Tokenizer& tokenizer, const DataConfig& config, const std::string& completion,
                       bool has_prompt, std::vector<int32_t>& tokens) {
  const Tokenizer::Special special = special_mode(config);
  const std::vector<int32_t> added =
      has_prompt ? encode_continuation(tokenizer, completion, special) : tokenizer.encode(completion, special);
  const size_t begin = tokens.size();
  append_once(tokens, has_prompt ? begin : 0, added, special);
  append_once(tokens, begin, tokenizer.back(), special);
}

/// The tokens of the text that a template begins (ends) with, before its first (behind its last) member.
std::vector<int32_t> spelled_end(const Tokenizer& tokenizer, const std::string& text, bool front) {
  const RecordTemplate parsed(text, "");
  if (parsed.parts().empty()) return {};
  const RecordTemplate::Part& part = front ? parsed.parts().front() : parsed.parts().back();
  return part.is_member ? std::vector<int32_t>() : tokenizer.encode(part.text, Tokenizer::Special::parse);
}

/// Choices are told apart by their tokens alone.
void require_distinct_words(const Tokenizer& tokenizer, const DataConfig& config) {
  std::vector<std::vector<int32_t>> encoded;
  for (const std::string& word : config.label_words) {
    encoded.push_back(encode_continuation(tokenizer, word, special_mode(config)));
    if (encoded.back().empty())
      throw UserError("data.label_words", fmt::format("the label word \"{}\" is no token for this tokenizer", word),
                      "name a word that the model can predict");
    const auto first = std::find(encoded.begin(), encoded.end(), encoded.back());
    if (first + 1 != encoded.end())
      throw UserError("data.label_words",
                      fmt::format("the label words \"{}\" and \"{}\" are the same tokens",
                                  config.label_words[static_cast<size_t>(first - encoded.begin())], word),
                      "the tokenizer does not know them, or drops what sets them apart: choose other words");
  }
}

/// Whether a second token that is not scored tells of a prompt, and a scored one of none. With nothing in front of documents a prompt of
/// one token looks like a text's first; several tokens in front of a text look like a prompt.
bool marks_tell_prompts(const TokenData& data, const Tokenizer& tokenizer) {
  if (!tokenizer.front().empty()) return tokenizer.front().size() == 1;
  for (int64_t d = 0, begin = 0; d < data.documents(); begin = data.ends[d++])
    if (begin + 1 < data.ends[d] && data.scored[begin + 1]) return false;
  return true;
}

/// Gathers documents and encodes them a batch at a time on all cores; the order of the tokens is that of the documents.
class Preparation {
 public:
  Preparation(const Tokenizer& tokenizer, const DataConfig& config) : tokenizer_(tokenizer), config_(config) {
    data_.choices = static_cast<int64_t>(config.label_words.size());
  }

  void add(TextExample document) {
    waiting_bytes_ += document.prompt.size() + document.completion.size();
    waiting_.push_back(std::move(document));
    if (waiting_bytes_ >= kBatchBytes) encode_waiting();
  }
  TokenData finish() {
    encode_waiting();
    if (marks_tell_prompts(data_, tokenizer_)) data_.has_prompt.clear();
    return std::move(data_);
  }
  int64_t skipped() const { return skipped_; }

 private:
  static constexpr size_t kBatchBytes = size_t{4} << 20;

  void encode_waiting() {
    leave_if_asked("preparing data");
    std::vector<std::vector<EncodedExample>> encoded(waiting_.size());
    const size_t threads =
        std::clamp<size_t>(std::thread::hardware_concurrency(), 1, std::max<size_t>(waiting_.size() / 64, 1));
    std::vector<std::future<void>> workers;
    for (size_t t = 0; t < threads; ++t)
      // Deferred where no more threads can be started: get() then does the work.
      workers.push_back(std::async(std::launch::async | std::launch::deferred, [&, t] {
        for (size_t i = t; i < waiting_.size(); i += threads)
          encoded[i] = encode_documents(tokenizer_, config_, waiting_[i]);
      }));
    for (std::future<void>& worker : workers) worker.get();
    for (size_t i = 0; i < waiting_.size(); ++i) append(encoded[i], waiting_[i].choice);
    waiting_.clear();
    waiting_bytes_ = 0;
  }
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
  std::vector<TextExample> waiting_;
  size_t waiting_bytes_ = 0;
  TokenData data_;
  int64_t skipped_ = 0;
};

template <class T> ConstView flat(const std::vector<T>& values) {
  return ConstView(values.data(), {static_cast<int64_t>(values.size())}, DTypeOf<T>::value);
}

void write_token_file(const fs::path& path, const TokenData& data, const std::string& recipe, int64_t skipped) {
  Hdf5File file = Hdf5File::create(path);
  file.write_text("/format", kFormatName);
  file.write_integer("/version", kFormatVersion);
  file.write_text("/recipe", recipe);
  file.write_integer("/skipped_documents", skipped);
  file.write("/tokens", flat(data.tokens));
  file.write("/scored", flat(data.scored));
  file.write("/document_ends", flat(data.ends));
  if (!data.has_prompt.empty()) file.write("/has_prompt", flat(data.has_prompt));
  if (data.choices > 0) {
    file.write_integer("/choices", data.choices);
    file.write("/answers", flat(data.answers));
  }
  file.seal();
}

template <class T> std::vector<T> read_values(const Hdf5File& file, const std::string& path) {
  std::vector<T> values(static_cast<size_t>(file.shape_of(path).count()));
  file.read(path, view_of(std::span(values), {static_cast<int64_t>(values.size())}));
  return values;
}

/// Whether each document is a choice of an example, whose answer is one of them.
bool choices_fit(const TokenData& data) {
  const auto examples = static_cast<int64_t>(data.answers.size());
  return data.choices > 0 && examples * data.choices == data.documents() &&
         std::all_of(data.answers.begin(), data.answers.end(),
                     [&](int32_t answer) { return 0 <= answer && answer < data.choices; });
}

/// @param choices  how many label words the recipe has
/// @throws UserError when the file is damaged or is not what its name says
TokenData read_token_file(const fs::path& path, const std::string& recipe, const Tokenizer& tokenizer, size_t choices) {
  const Hdf5File file = Hdf5File::open(path);
  if (file.read_text("/recipe") != recipe)
    throw UserError(path.string(), "the token file was made from something else");
  TokenData data;
  data.tokens = read_values<int32_t>(file, "/tokens");
  data.scored = read_values<uint8_t>(file, "/scored");
  data.ends = read_values<int64_t>(file, "/document_ends");
  if (file.contains("/has_prompt")) data.has_prompt = read_values<uint8_t>(file, "/has_prompt");
  if (choices > 0) {
    data.choices = file.read_integer("/choices");
    data.answers = read_values<int32_t>(file, "/answers");
  }
  const bool ends_rise =
      std::adjacent_find(data.ends.begin(), data.ends.end(), std::greater_equal<>()) == data.ends.end();
  const bool ids_known = std::all_of(data.tokens.begin(), data.tokens.end(),
                                     [n = tokenizer.vocab_size()](int32_t id) { return 0 <= id && id < n; });
  if (data.ends.empty() || !ends_rise || data.ends.front() <= 0 ||
      data.ends.back() != static_cast<int64_t>(data.tokens.size()) || data.scored.size() != data.tokens.size() ||
      (!data.has_prompt.empty() && data.has_prompt.size() != data.ends.size()) || !ids_known ||
      data.choices != static_cast<int64_t>(choices) || (choices > 0 && !choices_fit(data)))
    throw UserError(path.string(), "the token file contradicts itself");
  if (data.has_prompt.empty() && !marks_tell_prompts(data, tokenizer))
    throw UserError(path.string(), "an older version of this program made it");
  return data;
}

/// The data of a cached file; when it is there but damaged, nothing and the reason.
std::optional<TokenData> read_cached(const fs::path& path, const std::string& recipe, const Tokenizer& tokenizer,
                                     size_t choices, std::string& reason) {
  if (!fs::exists(path)) return std::nullopt;
  try {
    return read_token_file(path, recipe, tokenizer, choices);
  } catch (const UserError& damage) {
    reason = damage.message();
    return std::nullopt;
  }
}

void make_folder(const fs::path& folder) {
  std::error_code fault;
  if (!folder.empty()) fs::create_directories(folder, fault);
  if (fault)
    throw UserError("data.cache", fmt::format("the folder \"{}\" cannot be made: {}", folder.string(), fault.message()),
                    "name a folder that can be written with data.cache");
}

}  // namespace

bool is_held_out(const TextExample& document, double eval_fraction) {
  uint64_t hash = fnv1a(document.prompt.data(), document.prompt.size());
  hash = fnv1a("\0", 1, hash);
  hash = fnv1a(document.completion.data(), document.completion.size(), hash);
  return static_cast<double>(mix64(hash)) < std::ldexp(eval_fraction, 64);
}

std::vector<int32_t> encode_prompt(const Tokenizer& tokenizer, const DataConfig& config, const std::string& prompt) {
  std::vector<int32_t> tokens(tokenizer.front().begin(), tokenizer.front().end());
  const std::vector<int32_t> text = tokenizer.encode(prompt, special_mode(config));
  append_once(tokens, 0, text, special_mode(config));
  return tokens;
}

namespace {

/// A document that has its prompt only.
EncodedExample encoded_prompt(const Tokenizer& tokenizer, const DataConfig& config, const std::string& prompt) {
  std::vector<int32_t> tokens = encode_prompt(tokenizer, config, prompt);
  const auto count = static_cast<int64_t>(tokens.size());
  return {std::move(tokens), count, count > static_cast<int64_t>(tokenizer.front().size())};
}

}  // namespace

std::vector<std::string> reading_notices(const Tokenizer& tokenizer, const DataConfig& config) {
  std::vector<std::string> notices;
  if (!tokenizer.notice().empty()) notices.push_back(tokenizer.notice());
  const auto say = [&](const char* key, int32_t token) {
    notices.push_back(fmt::format("note: data.{} writes {}, which the tokenizer adds by itself: it is there once", key,
                                  tokenizer.token(token)));
  };
  const bool has_prompt = !config.prompt_template.empty();
  const auto front = spelled_end(tokenizer, has_prompt ? config.prompt_template : config.completion_template, true);
  if (overlap(tokenizer.front(), front) > 0) say(has_prompt ? "prompt_template" : "completion_template", front[0]);
  const auto back = spelled_end(tokenizer, config.completion_template, false);
  if (overlap(back, tokenizer.back()) > 0) say("completion_template", back.back());
  return notices;
}

EncodedExample encode_example(const Tokenizer& tokenizer, const DataConfig& config, const TextExample& example) {
  EncodedExample encoded = encoded_prompt(tokenizer, config, example.prompt);
  append_completion(tokenizer, config, example.completion, !example.prompt.empty(), encoded.tokens);
  return encoded;
}

std::vector<EncodedExample> encode_documents(const Tokenizer& tokenizer, const DataConfig& config,
                                             const TextExample& example) {
  if (!config.has_choices()) return {encode_example(tokenizer, config, example)};
  std::vector<EncodedExample> choices(config.label_words.size(), encoded_prompt(tokenizer, config, example.prompt));
  for (size_t c = 0; c < choices.size(); ++c)
    append_completion(tokenizer, config, config.label_words[c], !example.prompt.empty(), choices[c].tokens);
  return choices;
}

fs::path token_file_path(const DataConfig& config, const Tokenizer& tokenizer, Split split) {
  return cache_path(config, sha256_hex(recipe_of(open_source(config, split), config, tokenizer)));
}

TokenData answers_only(TokenData data) {
  if (data.choices == 0) return data;
  TokenData answers{.tokens = {},
                    .scored = {},
                    .ends = {},
                    .has_prompt = {},
                    .hash = std::move(data.hash),
                    .choices = 0,
                    .answers = {}};
  for (size_t example = 0; example < data.answers.size(); ++example) {
    const int64_t d = static_cast<int64_t>(example) * data.choices + data.answers[example];
    const int64_t begin = d == 0 ? 0 : data.ends[d - 1], end = data.ends[d];
    answers.tokens.insert(answers.tokens.end(), data.tokens.begin() + begin, data.tokens.begin() + end);
    answers.scored.insert(answers.scored.end(), data.scored.begin() + begin, data.scored.begin() + end);
    answers.ends.push_back(static_cast<int64_t>(answers.tokens.size()));
    if (!data.has_prompt.empty()) answers.has_prompt.push_back(data.has_prompt[static_cast<size_t>(d)]);
  }
  return answers;
}

TokenData load_split(const DataConfig& config, const Tokenizer& tokenizer, Split split, std::string* notice,
                     Rules rules) {
  static std::mutex one_at_a_time;  // ranks that are threads share a process, hence the temporary file's name
  const std::lock_guard lock(one_at_a_time);
  const Source source = open_source(config, split);
  const std::string recipe = recipe_of(source, config, tokenizer), key = sha256_hex(recipe);
  const fs::path path = cache_path(config, key);
  std::string damage;
  if (notice) *notice = source.notice;
  if (rules == Rules::first) {
    std::optional<TokenData> first =
        read_cached(first_cache_path(config, key), recipe, tokenizer, config.label_words.size(), damage);
    if (first) {
      first->hash = key;
      return std::move(*first);
    }
  }
  if (std::optional<TokenData> cached = read_cached(path, recipe, tokenizer, config.label_words.size(), damage)) {
    cached->hash = key;
    return std::move(*cached);
  }
  require_distinct_words(tokenizer, config);
  Preparation preparation(tokenizer, config);
  for_each_document(source.file, source.content(), config, [&](TextExample document) {
    if (source.takes(document)) preparation.add(std::move(document));
    return true;
  });
  TokenData data = preparation.finish();
  if (source.mapped->change() == MappedFile::Change::altered)
    throw UserError(source.file.string(), "was written to while it was read", "start again when it is whole");
  if (data.documents() == 0) fail_empty(source);
  data.hash = key;
  make_folder(config.cache);
  write_file_atomically(
      path, [&](const fs::path& temporary) { write_token_file(temporary, data, recipe, preparation.skipped()); });
  if (notice) {
    *notice += fmt::format("{}prepared {}: {} documents, {} tokens, from {}", notice->empty() ? "" : "\n",
                           path.string(), data.documents(), data.tokens.size(), source.file.string());
    if (preparation.skipped() > 0) *notice += fmt::format("; skipped {} with nothing to score", preparation.skipped());
    if (!damage.empty()) *notice += "; it was there, but " + damage;
  }
  return data;
}

TokenData load_sample(const DataConfig& config, const Tokenizer& tokenizer, Split split, int64_t documents,
                      bool& whole) {
  constexpr size_t kLongest = size_t{1} << 20;
  const Source source = open_source(config, split);
  require_distinct_words(tokenizer, config);
  Preparation preparation(tokenizer, config);
  int64_t taken = 0;
  whole = true;
  for_each_document(source.file, source.content(), config, [&](TextExample document) {
    if (!source.takes(document)) return true;
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
  if (data.documents() == 0 && whole) fail_empty(source);
  return data;
}

std::vector<TextExample> load_examples(const DataConfig& config, Split split, int64_t limit) {
  const Source source = open_source(config, split);
  std::vector<TextExample> examples;
  for_each_document(source.file, source.content(), config, [&](TextExample document) {
    if (source.takes(document)) examples.push_back(std::move(document));
    return limit == 0 || static_cast<int64_t>(examples.size()) < limit;
  });
  return examples;
}

}  // namespace tessera

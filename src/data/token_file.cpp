// A token file is named by a hash of all that decides what is in it: the source's bytes, the tokenizer's files, the
// keys of [data]. So a cache is never out of date, and two recipes that read alike share a file.

#include "data/token_file.h"

#include <algorithm>
#include <functional>
#include <mutex>
#include <optional>

#include "core/error.h"
#include "data/preparation.h"
#include "io/files.h"
#include "io/hdf5_file.h"
#include "io/sha256.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

/// Part of every cache key: raised when the layout changes.
constexpr int64_t kFormatVersion = 1;
/// Part of the file's name only: raised when the rules of reading give some sources other tokens. A run's checkpoints
/// keep the data's hash, which says what was read and not by which rules.
constexpr int64_t kReading = 2;
constexpr const char* kFormatName = "tessera tokens";

/// All that decides a token file's contents, one thing a line; kept in the file.
std::string recipe_of(const DataSource& source, const DataConfig& config, const Tokenizer& tokenizer) {
  std::string text = fmt::format("{} {}\nsource {}\ntokenizer {:016x}\n", kFormatName, kFormatVersion,
                                 sha256_hex(source.mapped->bytes()), tokenizer.fingerprint());
  if (source.eval_fraction > 0)
    text += fmt::format("{} part at {}\n", source.split == Split::eval ? "held-out" : "training", source.eval_fraction);
  // Keys of records do not touch a text file: changing them need not make its tokens again.
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
  // The first 32 hexadecimal digits: 128 bits, of which no two meet by chance.
  return config.cache / fmt::format("tokens-{:.32}-{}.h5", key, kReading);
}

/// The file of the same data by the first rules of reading, which had no number.
fs::path first_cache_path(const DataConfig& config, const std::string& key) {
  return config.cache / fmt::format("tokens-{:.32}.h5", key);
}

template <class T> ConstView flat(const std::vector<T>& values) {
  return ConstView(values.data(), {static_cast<int64_t>(values.size())}, DTypeOf<T>::value);
}

void write_token_file(const fs::path& path, const PreparedData& prepared, const std::string& recipe) {
  const TokenData& data = prepared.data;
  Hdf5File file = Hdf5File::create(path);
  file.write_text("/format", kFormatName);
  file.write_integer("/version", kFormatVersion);
  file.write_text("/recipe", recipe);
  file.write_integer("/skipped_documents", prepared.skipped);
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
  // A name holds 128 bits of a hash; the text that was hashed is compared whole.
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
  // Sealed, the file is what was written. It is still checked for being consistent, since indices are taken from it.
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

/// What is told of a file that was made.
std::string told_of(const fs::path& path, const DataSource& source, const PreparedData& prepared) {
  std::string text = fmt::format("prepared {}: {} documents, {} tokens, from {}", path.string(),
                                 prepared.data.documents(), prepared.data.tokens.size(), source.file.string());
  if (prepared.skipped > 0) text += fmt::format("; skipped {} with nothing to score", prepared.skipped);
  return text;
}

}  // namespace

fs::path token_file_path(const DataConfig& config, const Tokenizer& tokenizer, Split split) {
  return cache_path(config, sha256_hex(recipe_of(open_source(config, split), config, tokenizer)));
}

TokenData load_split(const DataConfig& config, const Tokenizer& tokenizer, Split split, std::string* notice,
                     Rules rules, int threads) {
  static std::mutex one_at_a_time;  // ranks that are threads share a process, hence the temporary file's name
  const std::lock_guard lock(one_at_a_time);
  const DataSource source = open_source(config, split);
  const std::string recipe = recipe_of(source, config, tokenizer), key = sha256_hex(recipe);
  const fs::path path = cache_path(config, key);
  std::string damage;
  if (notice) *notice = source.notice;
  std::optional<TokenData> cached;
  const size_t choices = config.label_words.size();
  // Such a run has read the file of the older rules, and must go on with the same tokens.
  if (rules == Rules::first) cached = read_cached(first_cache_path(config, key), recipe, tokenizer, choices, damage);
  if (!cached) cached = read_cached(path, recipe, tokenizer, choices, damage);
  if (cached) {
    cached->hash = key;
    return std::move(*cached);
  }
  PreparedData prepared = prepare(source, tokenizer, config, threads);
  prepared.data.hash = key;
  make_folder(config.cache);
  // Under its name only when it is whole: other processes may be looking for it.
  write_file_atomically(path, [&](const fs::path& temporary) { write_token_file(temporary, prepared, recipe); });
  if (notice) {
    if (!notice->empty()) *notice += '\n';
    *notice += told_of(path, source, prepared);
    if (!damage.empty()) *notice += fmt::format("; it was there, but {}", damage);
  }
  return std::move(prepared.data);
}

}  // namespace tessera

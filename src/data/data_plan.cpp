// What the data will take is told before it is read: a sample from the file's beginning is tokenized and stands for the
// rest. An estimate: texts need not be alike all through a file.

#include "data/data_plan.h"

#include <algorithm>
#include <functional>

#include "data/encoding.h"
#include "data/jsonl.h"
#include "io/mapped_file.h"

namespace tessera {
namespace {

constexpr size_t kSmall = size_t{1} << 20;     // files that nobody needs a plan for
constexpr size_t kSample = size_t{256} << 10;  // bytes of a file that are encoded

constexpr int64_t kTokenBytes = sizeof(int32_t) + sizeof(uint8_t);  // the token, and whether it is scored
constexpr int64_t kPieceBytes = 3 * sizeof(int64_t), kEndBytes = sizeof(int64_t);  // of PackedDataset and TokenData

bool is_inside_character(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

/// The first part of a file: whole lines of JSONL, whole characters of text.
std::string_view sample_of(std::string_view content, bool jsonl) {
  size_t end = std::min(content.size(), kSample);
  if (jsonl) {
    // Cut behind a whole line. A first line that is longer than the sample is taken whole.
    const size_t last = content.rfind('\n', end - 1);
    end = last != std::string_view::npos ? last + 1 : std::min(content.find('\n'), content.size());
  }
  while (!jsonl && end < content.size() && is_inside_character(content[end])) --end;
  return content.substr(0, end);
}

const std::filesystem::path& file_of(const DataConfig& config, Split split) {
  return split == Split::eval && !config.eval.empty() ? config.eval : config.train;
}

/// The sum over the split's documents of what one is worth: that of the sample, times how often it goes into the file.
double estimate(const DataConfig& config, const std::filesystem::path& tokenizer_folder, Split split,
                const MappedFile& mapped, const std::function<int64_t(int64_t tokens)>& worth) {
  const std::filesystem::path& file = file_of(config, split);
  const Tokenizer tokenizer = Tokenizer::load(tokenizer_folder);
  const std::string_view content(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
  const std::string_view sample = sample_of(content, is_jsonl(file));
  int64_t sum = 0, records = 0;
  for_each_document(file, sample, config, [&](const TextExample& document) {
    ++records;
    for (const EncodedExample& encoded : encode_documents(tokenizer, config, document))
      sum += worth(static_cast<int64_t>(encoded.tokens.size()));
    return true;
  });
  double times = static_cast<double>(content.size()) / static_cast<double>(std::max<size_t>(1, sample.size()));
  if (config.max_documents > 0)
    times =
        std::min(times, static_cast<double>(config.max_documents) / static_cast<double>(std::max<int64_t>(1, records)));
  const double held_out = config.eval.empty() ? config.eval_fraction : 0;
  const bool is_held_out = split == Split::eval && config.eval.empty();
  return static_cast<double>(sum) * times * (is_held_out ? held_out : 1 - held_out);
}

}  // namespace

int64_t plan_data_bytes(const DataConfig& config, const std::filesystem::path& tokenizer_folder, Split split,
                        int64_t sequence_length) {
  const auto mapped = MappedFile::open(file_of(config, split));
  if (mapped->bytes().size() < kSmall) return 0;
  return static_cast<int64_t>(estimate(config, tokenizer_folder, split, *mapped, [&](int64_t tokens) {
    const int64_t pieces = (tokens + sequence_length - 1) / sequence_length;
    return tokens * kTokenBytes + kEndBytes + 2 * pieces * kPieceBytes;  // in the document's order, and packed
  }));
}

int64_t plan_data_tokens(const DataConfig& config, const std::filesystem::path& tokenizer_folder, Split split) {
  const auto mapped = MappedFile::open(file_of(config, split));
  return static_cast<int64_t>(
      estimate(config, tokenizer_folder, split, *mapped, [](int64_t tokens) { return tokens; }));
}

}  // namespace tessera

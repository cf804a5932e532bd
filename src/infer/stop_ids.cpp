#include "infer/stop_ids.h"

#include <algorithm>

#include "core/error.h"
#include "core/json.h"
#include "io/json_file.h"

namespace tessera {
namespace {

void add_ids_of(const std::filesystem::path& file, std::vector<int32_t>& ids) {
  if (!std::filesystem::exists(file)) return;
  const Json config = read_configuration(file);
  const Json* named = config.find("eos_token_id");
  if (!named) return;
  // A single number is read as a list of one.
  const Json::Array one = {*named};
  for (const Json& id : named->is_array() ? named->items() : one) {
    if (!id.is_integer() || id.as_integer() != static_cast<int32_t>(id.as_integer()))
      throw UserError(file.string(), fmt::format("\"eos_token_id\" is {:.60}", named->dump()),
                      "expected the number of a token, or a list of such numbers");
    ids.push_back(static_cast<int32_t>(id.as_integer()));
  }
}

}  // namespace

std::vector<int32_t> stop_ids(const std::vector<std::filesystem::path>& folders, const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  for (const std::filesystem::path& folder : folders)
    for (const char* name : {"generation_config.json", "config.json"}) add_ids_of(folder / name, ids);
  if (tokenizer.eos()) ids.push_back(*tokenizer.eos());
  // What stood behind every text in training ends a text, whatever the files call it.
  if (!tokenizer.back().empty()) ids.push_back(tokenizer.back().front());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

}  // namespace tessera

// The header's bytes are hashed to name the run, so that two headers that mean the same and are spelled in two ways are
// two runs. The message still says which key differs, where one does.

#include "steplog/log_header.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>

#include "core/error.h"
#include "core/hex.h"
#include "core/json.h"
#include "io/files.h"
#include "io/json_file.h"
#include "steplog/segment.h"

namespace tessera {
namespace {

namespace fs = std::filesystem;

struct Difference {
  std::string key;
  const Json *there, *here;  // null where the key is missing
};

std::string in_words(const Json* value) { return value ? value->dump() : "missing"; }

std::optional<Difference> first_difference(const Json& there, const Json& here, const std::string& prefix) {
  if (!there.is_object() || !here.is_object()) {
    if (there.dump() == here.dump()) return std::nullopt;
    return Difference{prefix.empty() ? "header" : prefix, &there, &here};
  }
  const auto path_of = [&](const std::string& key) { return prefix.empty() ? key : prefix + "." + key; };
  // A key that is null and one that is absent mean the same.
  for (const auto& [key, value] : there.members()) {
    const Json* other = here.find(key);
    if (!other && value.is_null()) continue;
    if (!other) return Difference{path_of(key), &value, nullptr};
    if (auto inside = first_difference(value, *other, path_of(key))) return inside;
  }
  for (const auto& [key, value] : here.members())
    if (!value.is_null() && !there.find(key)) return Difference{path_of(key), nullptr, &value};
  return std::nullopt;
}

}  // namespace

void require_same_header(const std::string& place, const std::string& there, const std::string& here,
                         const std::string& other) {
  if (there == here) return;
  const Json stored = Json::parse(there, place), wanted = Json::parse(here, "the run header");
  const auto difference = first_difference(stored, wanted, "");
  const std::string what = difference
                               ? fmt::format("the log belongs to another run: \"{}\" is {} there and {} here",
                                             difference->key, in_words(difference->there), in_words(difference->here))
                               : "the log belongs to another run: the same keys and values, in another order or layout";
  throw UserError(place, what, "continue with the settings that the run began with, or " + other);
}

namespace {

constexpr int64_t kNewFormat = 2;

void require(bool holds, const std::string& what) {
  if (!holds) throw UserError("", what, "the header was altered, or another program wrote it");
}

int whole_between(const Json& header, const char* key, int64_t smallest, int64_t largest) {
  const int64_t value = header.at(key).as_integer();
  require(value >= smallest && value <= largest,
          fmt::format("\"{}\" is {}, it must be {} to {}", key, value, smallest, largest));
  return static_cast<int>(value);
}

std::vector<PublicKey> signers_in(const Json& header) {
  std::vector<PublicKey> signers;
  for (const Json& text : header.at("signers").items()) signers.push_back(parse_public_key(text.as_string()));
  // A record names its signer by a byte, and one list of keys has one spelling.
  require(signers.size() <= 256, fmt::format("{} signers, 256 at most", signers.size()));
  require(std::adjacent_find(signers.begin(), signers.end(), std::greater_equal()) == signers.end(),
          "\"signers\" do not ascend, or one stands there twice");
  return signers;
}

}  // namespace

ChainRules::Limits limits_of_header(const std::string& header_json, const std::string& where,
                                    const ChainRules::Limits& limits) {
  const Json header = parse_configuration(header_json, where);
  return with_place(where, [&] {
    const Json* format = header.find("format");
    // By its number, before its records are judged by rules that may not be its own.
    if (format && format->as_integer() > kNewFormat)
      throw UserError(
          "", fmt::format("the log has format {}, this program reads 1 and {}", format->as_integer(), kNewFormat),
          "a newer program wrote it: use that one");
    if (!format || format->as_integer() != kNewFormat) return limits;
    ChainRules::Limits said{.run = limits.run};
    said.format = static_cast<int>(kNewFormat);
    said.alpha_max = double_of_hex(header.at("alpha_max").as_string());
    require(said.alpha_max > 0 && std::isfinite(said.alpha_max),
            fmt::format("\"alpha_max\" is {}, it must be above 0", said.alpha_max));
    said.stale_max = whole_between(header, "stale_max", 0, 15);
    said.unit = whole_between(header, "unit", -20, 30);
    said.signers = signers_in(header);
    return said;
  });
}

fs::path header_file(const fs::path& folder) { return folder / "header.json"; }

bool has_log_header(const fs::path& folder) { return fs::exists(header_file(folder)); }

void refuse_headerless_records(const fs::path& folder) {
  if (has_log_header(folder) || !fs::is_directory(folder)) return;
  // Segments without a header may be anybody's: a new header would claim them for this run.
  for (const fs::directory_entry& entry : fs::directory_iterator(folder))
    if (parse_segment_name(entry.path()))
      throw UserError(folder.string(), "has records but no header.json",
                      "take header.json from another machine of the run");
}

std::string read_log_header(const fs::path& folder) {
  if (!has_log_header(folder))
    throw UserError(folder.string(), "is no step log: it has no header.json", "check the path");
  return read_text_file(header_file(folder));
}

void keep_log_header(const fs::path& folder, const std::string& header_json) {
  const fs::path file = header_file(folder);
  if (fs::exists(file))
    return require_same_header(file.string(), read_text_file(file), header_json, "choose another folder");
  refuse_headerless_records(folder);
  // What a kill left of a header that was being written. It has no name that counts.
  remove_temporaries(folder);
  write_text_file(file, header_json);
}

}  // namespace tessera

#pragma once
// The options of a request by the names that lines give them: what is known, what it may be, and what goes together.

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"
#include "infer/requests/option_values.h"
#include "infer/requests/request_defaults.h"

namespace tessera {

/// What a line's options come to before its prompts are known.
struct LineOptions {
  Request request{};  // all but prompt, custom_id and seed
  std::optional<uint64_t> seed{};
  std::optional<int64_t> truncate_prompt_tokens{};  // keep so many of a prompt's last tokens
  bool to_the_end = false;                          // max_tokens are those that the context has left behind the prompt
  std::set<std::string, std::less<>> said{};  // the names of options that the line gives, aliases under what they mean
};

/// Names of options that a line may give, aliases too; not those of its prompt and its number.
const std::vector<std::string>& option_names();

/// @param members   of the line, without those that say what its prompt is; null ones are not said
/// @param others    names that the line may have besides, for the hint to a name that is near an unknown one
/// @param told_names  gets the names that are read as others, or have no effect: see translation_of
/// @throws UserError without a place: an unknown name, two names of one option with different values, a value of
///   another type or out of its range, options that do not go together
LineOptions read_options(const std::vector<NamedValue>& members, const std::vector<std::string>& others,
                         const RequestDefaults&, const Tokenizer&, std::set<std::string>& told_names);

/// What is to be told of a name that other programs use: "is read as \"n\"".
std::string translation_of(const std::string& name);

}  // namespace tessera

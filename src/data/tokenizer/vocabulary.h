#pragma once
// The two-way table of tokens and ids.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/json.h"

namespace tessera::tokenizer {

class Vocabulary {
 public:
  Vocabulary() = default;
  /// @param vocab  the object {"token": id, ...} of a model
  /// @throws UserError on an id that is negative, unreasonably large or given twice
  explicit Vocabulary(const Json& vocab);

  /// Adds a token that the model does not know; nothing happens if it is there already under this id.
  /// @throws UserError if it has another id, or the id another token
  void add(const std::string& token, int64_t id);

  std::optional<int32_t> find(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }
  /// The same for the model's own tokens, which are all that a word can become.
  std::optional<int32_t> find_of_model(std::string_view token) const {
    const auto id = find(token);
    return id && *id < static_cast<int32_t>(of_model_.size()) && of_model_[*id] ? id : std::nullopt;
  }
  /// The id of a token that `user`, a place in the file, needs. @throws UserError if it is not there
  int32_t at(std::string_view token, std::string_view user) const;

  bool has(int64_t id) const { return id >= 0 && id < size() && known_[id]; }
  std::string_view token(int32_t id) const { return has(id) ? std::string_view(tokens_[id]) : std::string_view(); }
  int32_t size() const { return static_cast<int32_t>(tokens_.size()); }  // largest id + 1

 private:
  // Lets a string_view be looked up without a string being made of it.
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  std::vector<std::string> tokens_;
  std::vector<bool> known_;  // an id between others may be unused
  std::vector<bool> of_model_;
  std::unordered_map<std::string, int32_t, Hash, std::equal_to<>> ids_;
};

}  // namespace tessera::tokenizer

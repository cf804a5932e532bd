#include "data/tokenizer/vocabulary.h"

#include "core/error.h"

namespace tessera::tokenizer {
namespace {

constexpr int64_t kMaxId = 1 << 22;  // the largest vocabularies in use have 2^18 tokens

}  // namespace

Vocabulary::Vocabulary(const Json& vocab) {
  const auto& members = vocab.members();
  tokens_.reserve(members.size());
  known_.reserve(members.size());
  ids_.reserve(members.size());
  for (const auto& [token, id] : members) add(token, id.as_integer());
  // Added tokens come later: words become tokens of the model alone.
  of_model_ = known_;
}

void Vocabulary::add(const std::string& token, int64_t id) {
  if (id < 0 || id > kMaxId) {
    throw UserError("", fmt::format("the token \"{}\" has the id {}, expected 0 to {}", token, id, kMaxId));
  }
  // A second name for an id would make decoding a matter of order.
  if (has(id) && tokens_[id] != token) {
    throw UserError("", fmt::format("the id {} is given to two tokens, \"{}\" and \"{}\"", id, tokens_[id], token));
  }
  const auto [place, is_new] = ids_.emplace(token, static_cast<int32_t>(id));
  if (!is_new && place->second != id) {
    throw UserError("", fmt::format("the token \"{}\" has two ids, {} and {}", token, place->second, id));
  }
  if (id >= size()) {
    tokens_.resize(id + 1);
    known_.resize(id + 1);
  }
  tokens_[id] = token;
  known_[id] = true;
}

int32_t Vocabulary::at(std::string_view token, std::string_view user) const {
  const auto id = find(token);
  if (!id) throw UserError("", fmt::format("{} names the token \"{}\", which is not in the vocabulary", user, token));
  return *id;
}

}  // namespace tessera::tokenizer

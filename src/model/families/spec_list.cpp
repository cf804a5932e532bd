#include "model/families/spec_list.h"

#include "core/error.h"

namespace tessera {
namespace {

std::string name_of(int layer, const std::string& type, const char* kind) {
  return fmt::format("model.layers.{}.{}.{}", layer, type, kind);
}

}  // namespace

void SpecList::add(const std::string& name, const std::string& type, int layer, Role role, Part part, Shape shape,
                   Init::Kind kind) {
  const Init init{kind, kind == Init::Kind::normal ? config_.initializer_range : 0, {}};
  list_.push_back({.name = name,
                   .type = type,
                   .layer = layer,
                   .role = role,
                   .part = part,
                   .shape = shape,
                   .init = init,
                   .storage = name});
}

void SpecList::embedding(const std::string& name) {
  add(name, "", -1, Role::embedding, Part::embedding, {config_.vocab_size, config_.hidden_size}, Init::Kind::normal);
}

void SpecList::final_norm(const std::string& name) {
  add(name, "", -1, Role::norm, Part::final_norm, {config_.hidden_size}, Init::Kind::ones);
}

void SpecList::head(const std::string& name) {
  add(name, "", -1, Role::head, Part::head, {config_.vocab_size, config_.hidden_size}, Init::Kind::normal);
  if (config_.tie_word_embeddings) list_.back().storage = list_.front().name;
}

void SpecList::linear(int layer, const std::string& type, Part part, Shape shape) {
  add(name_of(layer, type, "weight"), type, layer, Role::linear, part, shape, Init::Kind::normal);
}

void SpecList::norm(int layer, const std::string& type, Part part) { norm(layer, type, part, config_.hidden_size); }

void SpecList::norm(int layer, const std::string& type, Part part, int64_t size) {
  add(name_of(layer, type, "weight"), type, layer, Role::norm, part, {size}, Init::Kind::ones);
}

void SpecList::bias(int layer, const std::string& type, Part part, int64_t size) {
  add(name_of(layer, type, "bias"), type, layer, Role::bias, part, {size}, Init::Kind::zeros);
}

}  // namespace tessera

#include "model/tensor_names.h"

#include <algorithm>
#include <optional>
#include <set>

#include "core/error.h"

namespace tessera {
namespace {

constexpr std::string_view kOfLargerModel = "language_model.";

const WeightSpec* find_part(std::span<const WeightSpec> specs, Part part) {
  const auto found = std::ranges::find(specs, part, &WeightSpec::part);
  return found == specs.end() ? nullptr : &*found;
}

/// "model." of "model.embed_tokens.weight".
std::string prefix_of(const std::string& name) { return name.substr(0, name.find('.') + 1); }

std::vector<std::string> known_prefixes(const std::string& own) {
  const std::string larger(kOfLargerModel);
  return {own, "", larger + own, own + larger, larger};
}

std::string text_of(const std::string& prefix) { return prefix.empty() ? "none" : "\"" + prefix + "\""; }

[[noreturn]] void refuse_mixture(const SafetensorsReader& source, const std::string& one, const std::string& other) {
  throw UserError(source.file_of(other)->path().string(),
                  fmt::format("the tensors \"{}\" and \"{}\" have different prefixes", one, other),
                  "all tensors of a model have one: give them one, or take the model's own files");
}

/// The prefix under which the files have a tensor, and which it is: nothing when they do not have it.
/// @param rest  its name without the specs' prefix
std::optional<std::string> prefix_in(const SafetensorsReader& source, std::span<const std::string> prefixes,
                                     const std::string& rest) {
  std::optional<std::string> found;
  for (const std::string& prefix : prefixes) {
    if (!source.contains(prefix + rest)) continue;
    if (found) refuse_mixture(source, *found + rest, prefix + rest);
    found = prefix;
  }
  return found;
}

/// Without the tensor the prefix is not known: is it there, under one that nobody knows?
void refuse_other_prefix(const SafetensorsReader& source, std::span<const std::string> prefixes,
                         const std::string& rest) {
  const std::vector<std::string>& names = source.names();
  const auto found = std::ranges::find_if(names, [&](const std::string& name) { return name.ends_with("." + rest); });
  if (found == names.end()) return;
  std::string known;
  for (const std::string& prefix : prefixes) known += (known.empty() ? "" : ", ") + text_of(prefix);
  throw UserError(
      source.file_of(*found)->path().string(),
      fmt::format("the tensor \"{}\" has a prefix that is not known, expected \"{}\"", *found, prefixes.front() + rest),
      "known prefixes: " + known);
}

}  // namespace

TensorNames::TensorNames(const SafetensorsReader& source, std::span<const WeightSpec> specs) {
  const WeightSpec *embedding = find_part(specs, Part::embedding), *norm = find_part(specs, Part::final_norm),
                   *head = find_part(specs, Part::head);
  TS_CHECK(embedding && norm && head, "a model without embedding, last norm or head");
  prefix_ = own_prefix_ = prefix_of(embedding->name);
  head_ = own_head_ = head->name;
  const std::vector<std::string> prefixes = known_prefixes(own_prefix_);
  std::string decider;  // the tensor that tells the prefix
  for (const WeightSpec* spec : {embedding, norm}) {
    const std::string rest = spec->name.substr(own_prefix_.size());
    const auto prefix = prefix_in(source, prefixes, rest);
    if (!prefix) continue;
    prefix_ = *prefix;
    decider = prefix_ + rest;
    break;
  }
  if (decider.empty())
    for (const WeightSpec* spec : {embedding, norm})
      refuse_other_prefix(source, prefixes, spec->name.substr(own_prefix_.size()));
  if (decider.empty()) return;  // what is missing is told with all the rest
  const std::string larger_head = std::string(kOfLargerModel) + own_head_;
  if (source.contains(larger_head)) {
    if (prefix_.find(kOfLargerModel) == std::string::npos) refuse_mixture(source, decider, larger_head);
    if (source.contains(own_head_)) refuse_mixture(source, own_head_, larger_head);
    head_ = larger_head;
  }
  std::set<std::string> known;
  for (const WeightSpec& spec : specs) known.insert(spec.name);
  for (const std::string& name : source.names()) {
    if ((name == head_ || name.starts_with(prefix_)) && known.count(own(name))) continue;
    for (const std::string& other : prefixes)
      if (name.starts_with(other) && known.count(own_prefix_ + name.substr(other.size())))
        refuse_mixture(source, decider, name);
  }
}

std::string TensorNames::in_files(const std::string& own) const {
  if (own == own_head_) return head_;
  return own.starts_with(own_prefix_) ? prefix_ + own.substr(own_prefix_.size()) : own;
}

std::string TensorNames::own(const std::string& stored) const {
  if (stored == head_) return own_head_;
  return stored.starts_with(prefix_) ? own_prefix_ + stored.substr(prefix_.size()) : stored;
}

void take_own_names(SafetensorsReader& source, std::span<const WeightSpec> specs, const TensorNames& names) {
  std::vector<std::pair<std::string, std::string>> renamed;
  for (const WeightSpec& spec : specs)
    if (const std::string stored = names.in_files(spec.name); stored != spec.name && source.contains(stored))
      renamed.emplace_back(stored, spec.name);
  source.rename(renamed);
}

}  // namespace tessera

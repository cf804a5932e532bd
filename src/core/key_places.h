#pragma once
// Where the keys of a recipe's section were given: faults that are found far from the recipe name the place.

#include <initializer_list>
#include <map>
#include <string>
#include <utility>

namespace tessera {

/// "recipe.toml:12:1" or "command line: adapter.rank" for each key that was given, and a place for all others.
class KeyPlaces {
 public:
  KeyPlaces() = default;
  KeyPlaces(std::string section) : section_(std::move(section)) {}     // NOLINT: one place will do for all
  KeyPlaces(const char* section) : KeyPlaces(std::string(section)) {}  // NOLINT
  KeyPlaces(std::string section, std::map<std::string, std::string> given)
      : section_(std::move(section)), given_(std::move(given)) {}

  /// Of the first of these keys that was given, else the section's.
  const std::string& of(std::initializer_list<const char*> keys) const {
    for (const char* key : keys)
      if (const auto found = given_.find(key); found != given_.end()) return found->second;
    return section_;
  }
  const std::string& of(const char* key) const { return of({key}); }
  const std::string& section() const { return section_; }

 private:
  std::string section_;
  std::map<std::string, std::string> given_;
};

}  // namespace tessera

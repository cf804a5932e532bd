#pragma once
// The rules between the keys of one section, which stand beside its fields: `void check(SectionCheck&) const`.
// Recipe::read calls it once the fields are set. Rules that cross sections are cli's.

#include <set>
#include <string>

#include "core/error.h"

namespace tessera {

class Recipe;

/// What a section's own check sees of how it was given, and where it says what is wrong with it.
class SectionCheck {
 public:
  SectionCheck(Recipe& recipe, std::string section) : recipe_(recipe), section_(std::move(section)) {}

  bool has(const std::string& key) const;  // given, not defaulted
  /// The keys that hold something else than their defaults.
  /// A resolved recipe spells out every default: that says nothing.
  std::set<std::string> said() const;
  /// Adds a fault of a key, or of the section where the key is empty.
  void fault(const std::string& key, const std::string& what, const std::string& hint = {});
  /// Adds a fault of what a key holds, found by who reads it.
  void pass_on(const std::string& key, const UserError&);

 private:
  Recipe& recipe_;
  std::string section_;
};

}  // namespace tessera

#include "core/section_check.h"

#include "core/error.h"
#include "core/recipe.h"

namespace tessera {

bool SectionCheck::has(const std::string& key) const { return recipe_.has(section_, key); }

std::set<std::string> SectionCheck::said() const { return recipe_.said(section_); }

void SectionCheck::fault(const std::string& key, const std::string& what, const std::string& hint) {
  recipe_.fault(section_, key, what, hint);
}

void SectionCheck::pass_on(const std::string& key, const UserError& error) {
  const std::string name = section_ + "." + key;
  const bool is_named = recipe_.where(section_, key).ends_with(name);  // "command line: train.freeze"
  fault(key, is_named ? error.message() : name + ": " + error.message(), error.hint());
}

}  // namespace tessera

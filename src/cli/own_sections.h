#pragma once
// Sections of a recipe that belong to one job: their structs are declared in the job's file,
// and nobody else knows them.

#include <any>
#include <map>
#include <typeindex>

namespace tessera {

/// One struct a type. A copy of it holds copies of the structs.
class OwnSections {
 public:
  /// Made at its defaults when it is asked for first; it stays where it is.
  template <class Config> Config& of() {
    std::any& slot = sections_[typeid(Config)];
    if (!slot.has_value()) slot = Config{};
    return *std::any_cast<Config>(&slot);
  }
  /// The defaults, where nothing was read.
  template <class Config> const Config& of() const {
    static const Config unset;
    const auto found = sections_.find(typeid(Config));
    return found == sections_.end() ? unset : *std::any_cast<Config>(&found->second);
  }

 private:
  std::map<std::type_index, std::any> sections_;
};

}  // namespace tessera

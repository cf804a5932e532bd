#pragma once
// Keys that say something which nobody reads: what the user wanted does not happen.

#include <set>
#include <string>
#include <vector>

#include "cli/job_config.h"

namespace tessera {

/// The keys of a section that hold something else than their defaults.
/// A stored recipe spells out every default: that says nothing.
std::set<std::string> said_keys(const Fields& given, const Fields& defaults);
template <class Config> std::set<std::string> said_keys(Config config);

/// The keys of a section.
std::set<std::string> all_keys(const Fields&);
template <class Config> std::set<std::string> all_keys(Config config);

/// What the recipe's job, method or optimizer does not read.
struct UnreadKeys {
  std::vector<std::string> notes;  // a line for each group of keys that are given nevertheless
  std::set<std::string> names;     // "section.key", given or not
};
UnreadKeys unread_keys(const JobConfig&);

/// Gathers what of a section is not read, and lines about what of that was said. A key is told once, for the first
/// reason.
class UnreadNotes {
 public:
  void add(const std::string& section, const std::set<std::string>& said, const std::set<std::string>& unread,
           const std::string& why);
  bool has(const std::string& name) const { return found_.names.count(name) > 0; }
  UnreadKeys take() { return std::move(found_); }

 private:
  UnreadKeys found_;
};

template <class Config> std::set<std::string> said_keys(Config config) {
  Config unset;
  Fields given, defaults;
  config.visit(given);
  unset.visit(defaults);
  return said_keys(given, defaults);
}

template <class Config> std::set<std::string> all_keys(Config config) {
  Fields fields;
  config.visit(fields);
  return all_keys(fields);
}

}  // namespace tessera

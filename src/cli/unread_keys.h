#pragma once
// Keys that say something which nobody reads: what the user wanted does not happen.

#include <set>
#include <string>
#include <vector>

#include "cli/job_config.h"

namespace tessera {

/// The keys of a section that hold something else than their defaults. A stored recipe spells out every default: that says nothing.
template <class Config> std::set<std::string> said_keys(Config config);

/// The keys of a section.
template <class Config> std::set<std::string> all_keys(Config config);

/// What the recipe's job, method or optimizer does not read.
struct UnreadKeys {
  std::vector<std::string> notes;  // a line for each group of keys that are given nevertheless
  std::set<std::string> names;     // "section.key", given or not
};
UnreadKeys unread_keys(const JobConfig&);

/// Gathers what of a section is not read, and lines about what of that was said.
class UnreadNotes {
 public:
  void add(const std::string& section, const std::set<std::string>& said, const std::set<std::string>& unread,
           const std::string& why);
  UnreadKeys take() { return std::move(found_); }

 private:
  UnreadKeys found_;
};

bool same_value(const FieldTarget&, const FieldTarget&);

template <class Config> std::set<std::string> said_keys(Config config) {
  Config unset;
  Fields given, defaults;
  config.visit(given);
  unset.visit(defaults);
  std::set<std::string> keys;
  for (size_t i = 0; i < given.list.size(); ++i)
    if (!same_value(given.list[i].target, defaults.list[i].target)) keys.insert(given.list[i].key);
  return keys;
}

template <class Config> std::set<std::string> all_keys(Config config) {
  Fields fields;
  config.visit(fields);
  std::set<std::string> keys;
  for (const Field& field : fields.list) keys.insert(field.key);
  return keys;
}

}  // namespace tessera

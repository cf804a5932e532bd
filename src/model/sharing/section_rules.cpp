// What is wrong with [sharing] or [adapter] for itself, before there is a model.

#include "core/error.h"
#include "core/section_check.h"
#include "model/sharing/adapter.h"
#include "model/sharing/base.h"
#include "model/sharing/regex_of.h"

namespace tessera {
namespace {

/// "a", "b" or "c": the methods that hold something.
template <class Method> std::string choice_of(const std::vector<Method>& methods) {
  std::vector<std::string> names;
  for (const Method& method : methods)
    if (method.name != "none") names.push_back(fmt::format("\"{}\"", method.name));
  std::string text = names.front();
  for (size_t i = 1; i < names.size(); ++i) text += (i + 1 < names.size() ? ", " : " or ") + names[i];
  return text;
}

/// Options are given and the method is not even named: what was wanted would not happen, without a word.
/// method = "none" says that it is meant.
void require_method(SectionCheck& own, const std::string& section, const std::string& otherwise,
                    const std::string& methods) {
  std::set<std::string> said = own.said();
  said.erase("load");  // which has a word of its own
  if (own.has("method") || said.empty()) return;
  own.fault(*said.begin(),
            fmt::format("{0}.{1} is given, but {0}.method is not: {2}", section, *said.begin(), otherwise),
            fmt::format("set {}.method to {}, or to \"none\" if this is meant", section, methods));
}

}  // namespace

void SharingConfig::check(SectionCheck& own) const {
  require_method(own, "sharing", "every weight would be a number of its own", choice_of(sharing_methods()));
  if (method == "none" && !load.empty())
    own.fault("load", "sharing.load is given, but sharing.method is \"none\"",
              "set sharing.method and its options to the saved ones: its sharing.json names them");
  if (method != "none" && shared.empty())
    own.fault("shared", "sharing.shared names no weights", "write [\"linears\"], or leave it out");
  check_patterns(own, "shared", shared);
}

void AdapterConfig::check(SectionCheck& own) const {
  require_method(own, "adapter", "all weights would be trained", choice_of(adapter_methods()));
  if (targets.empty()) own.fault("targets", "adapter.targets names no weights", "write [\"all\"], or leave it out");
  if (method == "none" && !load.empty())
    own.fault("load", "adapter.load is given, but adapter.method is \"none\"",
              "set adapter.method and its options to the saved adapter's: its adapter.json names them");
}

}  // namespace tessera

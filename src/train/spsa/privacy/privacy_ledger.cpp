#include "train/spsa/privacy/privacy_ledger.h"

#include "core/error.h"
#include "core/json.h"
#include "io/files.h"
#include "io/json_file.h"

namespace tessera {
namespace {

Json json_of(const PrivacyTerms& terms, int64_t releases) {
  return Json::object()
      .set("clip", terms.clip)
      .set("delta", terms.delta)
      .set("documents", terms.documents)
      .set("epsilon", terms.epsilon)
      .set("epsilon_spent", epsilon_of(releases, terms.release, terms.delta))
      .set("node", terms.node)
      .set("q", terms.release.q)
      .set("releases", releases)
      .set("run", terms.run)
      .set("sigma", terms.release.sigma);
}

}  // namespace

PrivacyLedger::PrivacyLedger(std::filesystem::path file, PrivacyTerms terms, int64_t in_log)
    : file_(std::move(file)), terms_(std::move(terms)) {
  budget_ = releases_within(terms_.epsilon, terms_.release, terms_.delta);
  if (std::filesystem::exists(file_)) {
    read(in_log);
    return;
  }
  if (in_log > 0)
    throw UserError(file_.string(), fmt::format("is missing, and the log holds {} votes of this node", in_log),
                    "put it back: without it nobody knows what its documents have told already");
  write();
}

void PrivacyLedger::read(int64_t in_log) {
  with_place(file_.string(), [&] {
    const Json kept = Json::parse(read_text_file(file_), file_.string());
    const Json mine = json_of(terms_, 0);
    for (const auto& [key, value] : mine.members()) {
      if (key == "releases" || key == "epsilon_spent") continue;
      const Json& was = kept.at(key);
      if (was.dump() != value.dump())
        throw UserError("",
                        fmt::format("\"{}\" was {} when this node began, and is {} now", key, was.dump(), value.dump()),
                        "what votes cost is reckoned for one setting and one set of documents: go back to it, or begin "
                        "another run");
    }
    releases_ = kept.at("releases").as_integer();
    if (releases_ < in_log)
      throw UserError("", fmt::format("tells of {} releases, and the log holds {} of this node", releases_, in_log),
                      "it is an older copy: put the newest one back");
  });
}

bool PrivacyLedger::spend(int64_t releases) {
  if (releases_ + releases > budget_) return false;
  releases_ += releases;
  write();
  return true;
}

void PrivacyLedger::write() const { write_text_file(file_, json_of(terms_, releases_).dump(1) + "\n"); }

std::string PrivacyLedger::text() const {
  return fmt::format(
      "privacy: epsilon {:.4g} of {:g} is spent, by {} of {} releases, delta {:g}; sigma {:.4f}, clip {:g}, q {:.3g}. "
      "It holds for one document, added or removed, that is in the data once; each takes part in a probe with "
      "probability q, drawn by the system; all other machines may be anybody's",
      epsilon_of(releases_, terms_.release, terms_.delta), terms_.epsilon, releases_, budget_, terms_.delta,
      terms_.release.sigma, terms_.clip, terms_.release.q);
}

}  // namespace tessera

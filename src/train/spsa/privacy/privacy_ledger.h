#pragma once
// privacy.json: what a machine's votes have cost so far. Never fewer releases than votes that were sent.

#include <filesystem>
#include <string>

#include "train/spsa/privacy/accountant.h"

namespace tessera {

/// What is fixed for a machine's whole part in a run.
struct PrivacyTerms {
  std::string run{}, node{};
  int64_t documents = 0;
  Release release{};
  double clip = 0, delta = 0, epsilon = 0;
};

class PrivacyLedger {
 public:
  /// Goes on with the file, or begins it.
  /// @param in_log  releases that the log holds of this node's machines
  /// @throws UserError when the file is damaged, has other terms, or tells of fewer releases than the log holds
  PrivacyLedger(std::filesystem::path file, PrivacyTerms terms, int64_t in_log);

  /// Counts releases that are about to be sent; synced when it returns. @return false, with nothing counted, when they
  /// would pass the budget
  bool spend(int64_t releases);

  int64_t releases() const { return releases_; }
  int64_t budget() const { return budget_; }  // releases in all
  const PrivacyTerms& terms() const { return terms_; }
  /// What is assumed, and what has been spent, for the user to read.
  std::string text() const;

 private:
  void read(int64_t in_log);
  void write() const;

  std::filesystem::path file_;
  PrivacyTerms terms_;
  int64_t releases_ = 0, budget_ = 0;
};

}  // namespace tessera

#include "infer/requests/line_faults.h"

namespace tessera {
namespace {

constexpr size_t kTold = 10;

/// On one line, how to mend it included.
std::string reason_of(const UserError& fault) {
  if (fault.hint().empty()) return fault.message();
  std::string hint = fault.hint();
  for (size_t at = hint.find('\n'); at != std::string::npos; at = hint.find('\n', at + 2)) hint.replace(at, 1, "; ");
  return fmt::format("{} ({})", fault.message(), hint);
}

}  // namespace

void LineFaults::add(const UserError& fault) {
  ++count_;
  if (first_.size() < kTold) first_.push_back(fault);
}

void LineFaults::require_none() const {
  if (count_ == 0) return;
  if (count_ == 1) throw UserError(first_.front());
  std::string others;
  for (size_t i = 1; i < first_.size(); ++i) others += fmt::format("{}: {}\n", first_[i].where(), reason_of(first_[i]));
  const bool is_all = count_ == static_cast<int64_t>(first_.size());
  throw UserError(
      first_.front().where(), reason_of(first_.front()),
      others + fmt::format("{} faults{}", count_, is_all ? "" : fmt::format(", the first {} are told", first_.size())));
}

}  // namespace tessera

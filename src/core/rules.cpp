#include "core/rules.h"

#include "core/error.h"

namespace tessera {

Rules rules_of(int64_t number) {
  if (number >= 1 && number <= static_cast<int64_t>(kNewestRules)) return static_cast<Rules>(number);
  throw UserError(
      "",
      fmt::format("the run follows rules {}, this program knows 1 to {}", number, static_cast<int64_t>(kNewestRules)),
      "go on with the program that began it, or a newer one");
}

}  // namespace tessera

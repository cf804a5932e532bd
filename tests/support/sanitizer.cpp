#include "support/sanitizer.h"

namespace tessera::test {

bool is_address_sanitized() {
#if defined(__SANITIZE_ADDRESS__)
  return true;
#else
  return false;
#endif
}

}  // namespace tessera::test

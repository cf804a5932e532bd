#pragma once
// Whether this program was built with the address sanitizer: asked when it runs, since tests may be compiled without it
// and linked to modules that have it (TESSERA_TEST_OBJECTS).

namespace tessera::test {

bool is_address_sanitized();

}  // namespace tessera::test

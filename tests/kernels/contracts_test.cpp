// What a device's compiler has to read of an op: its contract alone, without the libraries of the host.

#include "kernels/table.h"

#ifdef FMT_VERSION
#error "a contract header includes fmt"
#endif

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace tessera {
namespace {

TEST(Contracts, EveryOpHasOneName) {
  std::set<std::string> names;
  Kernels::visit([&](const char* name, auto) { EXPECT_TRUE(names.insert(name).second) << name; });
  EXPECT_GT(names.size(), 25u);
}

}  // namespace
}  // namespace tessera

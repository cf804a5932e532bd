#include "io/numbered_name.h"

#include <gtest/gtest.h>

namespace tessera {
namespace {

TEST(NumberedName, ReadsBackWhatItMakes) {
  for (const int64_t number : {int64_t{0}, int64_t{7}, int64_t{99'999'999}, int64_t{100'000'000}, INT64_MAX}) {
    const std::string name = numbered_name("step-", number, ".h5");
    EXPECT_EQ(number_in_name(name, "step-", ".h5"), number) << name;
  }
  EXPECT_EQ(numbered_name("step-", 1000, ".h5"), "step-00001000.h5");
}

TEST(NumberedName, TakesNoOtherNameForANumber) {
  for (const char* name :
       {"step-best.h5", "step-00000020-copy.h5", "step-00000020.h5.bak", "step-20.h5", "step-000000020.h5",
        "step--0000020.h5", "step-+0000020.h5", "step- 0000020.h5", "step-.h5", "step-h5", "xstep-00000020.h5",
        ".step-00000020.h5", "step-00000020 (1).h5", "step-99999999999999999999.h5", "best.h5", ""})
    EXPECT_EQ(number_in_name(name, "step-", ".h5"), std::nullopt) << name;
}

}  // namespace
}  // namespace tessera

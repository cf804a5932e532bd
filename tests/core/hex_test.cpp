#include "core/hex.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

#include "core/error.h"

namespace tessera {
namespace {

TEST(Hex, GivesDoublesBackToTheBit) {
  EXPECT_EQ(hex_bits(0.008), "3f80624dd2f1a9fc");
  for (const double value : {0.0, -0.0, 0.1, 1e-320, -std::numeric_limits<double>::infinity()}) {
    EXPECT_EQ(double_of_hex(hex_bits(value)), value);
    EXPECT_EQ(std::signbit(double_of_hex(hex_bits(value))), std::signbit(value));
  }
  EXPECT_TRUE(std::isnan(double_of_hex("7ff8000000000000")));
  for (const char* text :
       {"", "3f80624dd2f1a9f", "3f80624dd2f1a9fc0", "3F80624DD2F1A9FC", "-f80624dd2f1a9fc", "0x80624dd2f1a9fc"})
    EXPECT_THROW(double_of_hex(text), UserError) << text;
}

TEST(Hex, GivesBytesBack) {
  const std::vector<std::byte> bytes = {std::byte{0}, std::byte{0x9f}, std::byte{0xff}};
  EXPECT_EQ(bytes_of_hex("009fff"), bytes);
  EXPECT_EQ(bytes_of_hex(""), std::vector<std::byte>());
  for (const char* text : {"0", "0g", "FF", "0x", " 0"}) EXPECT_FALSE(bytes_of_hex(text)) << text;
}

}  // namespace
}  // namespace tessera

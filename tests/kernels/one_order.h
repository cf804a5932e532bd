#pragma once
// The order of sums as plain loops, and a comparison with what kernels give on every instruction set of this machine.

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "kernels/cpu_target.h"
#include "kernels/harness.h"

namespace tessera::test {

/// Those of this machine.
inline const std::vector<std::string>& targets() {
  static const std::vector<std::string> found = [] {
    std::vector<std::string> names;
    for (const std::string& name : cpu_target_choices()) try {
        use_cpu_target(name);
        if (name != "auto") names.push_back(name);
      } catch (const UserError&) {  // this machine has none
      }
    use_cpu_target("auto");
    return names;
  }();
  return found;
}

inline std::vector<int64_t> lengths() {
  std::vector<int64_t> all = kLengths;
  all.push_back(4099);
  return all;
}
/// Enough rows for several threads.
inline int64_t rows_of(int64_t length) { return 3 + 20'000 / length; }

/// The order of a sum along a row (cpu/lanes-inl.h): step(i, lane) is the lane behind element i.
template <class T, class Step> T sixteen_lanes(int64_t n, Step&& step) {
  T lanes[16] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % 16] = step(i, lanes[i % 16]);
  for (int half = 8; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  return lanes[0] + T{0};
}

/// What an op left. f32 widens exactly; every NaN is one value, and −0 is not +0.
using Numbers = std::vector<double>;
inline std::vector<uint64_t> bits(const Numbers& numbers) {
  std::vector<uint64_t> all;
  for (const double x : numbers) all.push_back(std::isnan(x) ? 1 : std::bit_cast<uint64_t>(x));
  return all;
}
inline void append(Numbers& numbers, const Matrix& x) {
  for (int64_t r = 0; r < x.rows(); ++r)
    for (int64_t c = 0; c < x.cols(); ++c) numbers.push_back(x.at(r, c));
}

/// `op` gives these numbers everywhere.
template <class Op> void expect_everywhere(const Numbers& want, Op&& op) {
  const std::vector<uint64_t> wanted = bits(want);
  for (const std::string& target : targets()) {
    use_cpu_target(target);
    for (const int threads : {1, 2, 3, 7}) {
      const std::vector<uint64_t> got = bits(op(On("cpu", threads)));
      ASSERT_EQ(got.size(), wanted.size());
      const auto at = std::mismatch(got.begin(), got.end(), wanted.begin()).first - got.begin();
      if (at < static_cast<int64_t>(got.size()))
        FAIL() << target << ", " << threads << " threads: number " << at << " of " << got.size() << " is "
               << std::bit_cast<double>(got[at]) << ", not " << want[at];
    }
  }
}

class OneOrder : public testing::Test {
 protected:
  void TearDown() override { use_cpu_target("auto"); }
};

inline const float* row(const Matrix& x, int64_t r = 0) { return ConstView(x.view()).row<float>(r); }

}  // namespace tessera::test

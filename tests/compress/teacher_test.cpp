// The teacher's states: those of its own passes, whatever the student's batch brings along.

#include "compress/teacher.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "kernels/elementwise.h"
#include "score/forward.h"
#include "support/batches.h"
#include "support/tiny_model.h"

namespace tessera {
namespace {

using test::OwnContext;

class TeacherTest : public testing::Test {
 protected:
  TeacherTest() : original_(test::tiny_settings(folder_.path(), {.layers = 4})) {}

  /// The stream behind so many of the original's blocks.
  Tensor behind(int blocks) {
    const auto scope = own_.ctx.scratch.scope();
    const BatchTokens in(own_.ctx, batch_, nullptr);
    const Pass pass{own_.ctx, in.tokens(), {&original_.pool()}};
    PackedAttention attention;
    const TensorView hidden = original_.decoder().embed(pass);
    original_.decoder().blocks(pass, {0, blocks}, attention, hidden);
    Tensor kept(hidden.shape, hidden.dtype);
    convert(own_.ctx, hidden, kept);
    return kept;
  }

  test::TemporaryFolder folder_;
  OwnContext own_;
  Model original_;
  PackedBatch batch_ = test::packed_batch();
};

TEST_F(TeacherTest, KeepsTheStatesThatAreAskedForOfItsOwnWeights) {
  Model::Settings settings = test::tiny_settings(folder_.path(), {.layers = 4});
  settings.adapter.method = "lora";
  Model student(settings);
  test::fill_all_normal(student.pool(), 3, 0.5);
  student.assemble(own_.ctx);
  const Teacher teacher(original_);
  for (const std::vector<int>& at : {std::vector<int>{0, 1, 4}, {4}, {2, 3}, {}}) {
    const auto scope = own_.ctx.scratch.scope();
    const BatchTokens in(own_.ctx, batch_, student.bound_adapter());
    const std::vector<TensorView> states = teacher.states(own_.ctx, in.tokens(), at);
    ASSERT_EQ(states.size(), at.size());
    for (size_t i = 0; i < at.size(); ++i) EXPECT_TRUE(test::same_bytes(states[i], behind(at[i]).view())) << at[i];
  }
}

TEST_F(TeacherTest, RefusesStatesThatItDoesNotComeBy) {
  const Teacher teacher(original_);
  const BatchTokens in(own_.ctx, batch_, nullptr);
  for (const std::vector<int>& at : {std::vector<int>{5}, {3, 2}, {-1}})
    EXPECT_THROW(teacher.states(own_.ctx, in.tokens(), at), InternalError);
}

}  // namespace
}  // namespace tessera

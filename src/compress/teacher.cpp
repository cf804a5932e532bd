#include "compress/teacher.h"

#include <algorithm>

#include "core/device/memory.h"
#include "core/error.h"
#include "kernels/elementwise.h"
#include "model/packed_attention.h"

namespace tessera {
namespace {

/// A student's batch as the teacher reads it: its own deltas, or none, in place of the student's.
struct TeachersBatch {
  RowGroup group;
  TokenBatch batch;

  TeachersBatch(const TokenBatch& of_student, Model& model)
      : group{0, of_student.tokens(), model.bound_adapter()}, batch(of_student) {
    batch.groups = {&group, 1};
  }
  TeachersBatch(const TeachersBatch&) = delete;
};

}  // namespace

std::vector<TensorView> Teacher::states(const Context& ctx, const TokenBatch& student, std::span<const int> at) const {
  const TeachersBatch own(student, model_);
  const Pass pass{ctx, own.batch, {&model_.pool()}};
  const int64_t width = model_.config().hidden_size;
  std::vector<TensorView> states;
  for (size_t i = 0; i < at.size(); ++i) states.push_back(pass.rows(width, decoder().activations()));
  const auto scope = ctx.scratch.scope();
  const TensorView hidden = decoder().embed(pass);
  PackedAttention attention;
  int done = 0;  // blocks that have been run
  for (size_t i = 0; i < at.size(); ++i) {
    TS_CHECK(at[i] >= done && at[i] <= num_layers(), "state {} behind state {} of {} blocks", at[i], done,
             num_layers());
    decoder().blocks(pass, {done, at[i]}, attention, hidden);
    done = at[i];
    convert(ctx, hidden, states[i]);
  }
  return states;
}

WeightLease Teacher::lease_head(const Context& ctx, const TokenBatch& student) const {
  const TeachersBatch own(student, model_);
  return decoder().lease_head({ctx, own.batch, {&model_.pool()}});
}

TaughtScores score_taught(const Pass& pass, const DecoderModel& student, ConstView hidden, const BatchTokens& in,
                          const Teacher& teacher, ConstView teachers, const TaughtWeights& weights,
                          TensorView dhidden) {
  const auto count = static_cast<int64_t>(in.rows().size());
  const auto vector = [&](DType dtype) {  // at least one row: a batch without a scored token has addresses, too
    return pass.ctx.scratch.allocate({std::max<int64_t>(1, count)}, dtype).slice_rows(0, count);
  };
  const TaughtScores scores{{vector(student.activations()), vector(DType::i32)}, vector(student.activations())};
  const WeightLease own = student.lease_head(pass), other = teacher.lease_head(pass.ctx, in.tokens());
  distill_rows(pass, student.head_part(), hidden,
               {.head = {.rows = in.rows(),
                         .labels = in.labels(),
                         .nll = scores.rows.nll,
                         .best = scores.rows.best,
                         .dhidden = dhidden},
                .teacher = teacher.head(teachers, in.rows()),
                .temperature = weights.temperature,
                .kl_weight = weights.kl,
                .kl = scores.kl,
                .nll_weight = weights.nll});
  return scores;
}

double sum_of_rows(const ConstView& rows, double sum) {
  const OnHost host(rows);
  for (int64_t i = 0; i < rows.shape.count(); ++i) sum += element(host.view(), i);
  return sum;
}

}  // namespace tessera

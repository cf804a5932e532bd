// An adapter on a frozen Stable-RPS base.

#include "model/sharing_io.h"
#include "train/rps_training.h"

namespace tessera {
namespace {

using namespace test;

TEST_F(RpsTraining, AnAdapterOnAFrozenSharedBaseGetsTheGradientsItGetsOnTheDenseExport) {
  for (const bool tied : {false, true}) {
    Model base(settings(rps(4), {.tied = tied}));
    save_sharing(folder_ / "shared", base);
    Model::Settings on_shared = settings(rps(4), {.tied = tied}), on_dense = given(exported(base));
    on_shared.sharing.load = folder_ / "shared";
    for (Model::Settings* s : {&on_shared, &on_dense}) {
      s->train_base = false;
      s->adapter.method = "mos";
      s->adapter.rank = 4;
      s->adapter.shards = 2;
      s->adapter.equivalent_rank = 2;
    }
    Model shared(on_shared), dense(on_dense);
    ASSERT_EQ(shared.pool().trainable_count(), dense.pool().trainable_count());
    for (const auto& rows : {std::vector<int64_t>{0}, {0, 1, 2, 3, 4, 5, 6}}) {  // 12 tokens, and more than 64
      for (Model* model : {&shared, &dense}) {
        test::fill_all_normal(model->pool(), 3, 0.3);
        model->pool().zero_grads();
        model->assemble(own_.ctx);
        backprop_batch(own_.ctx, *model, batch(rows));
        model->bound_adapter()->finish_backward(own_.ctx);
      }
      std::vector<double> ours, theirs;
      append(ours, shared.pool().trainable().grads);
      append(theirs, dense.pool().trainable().grads);
      EXPECT_GT(norm(theirs), 1);
      EXPECT_LE(norm(difference(ours, theirs)), 1e-6 * norm(theirs)) << rows.size() << " rows";
    }
  }
}

}  // namespace
}  // namespace tessera

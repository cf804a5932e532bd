// Attention over pages on the device whose memory the host cannot read.

#include "core/device/memory.h"
#include "kernels/compute.h"
#include "kernels/paged_tree.h"
#include "kernels/upload.h"

namespace tessera::test {
namespace {

/// What a struct of arguments shows, brought to a context's device.
class Moved {
 public:
  explicit Moved(const Context& ctx) : ctx_(ctx) {}
  template <class T> void operator()(IndexArray<T>& array) { array = upload(ctx_, array.host()); }
  void operator()(KeyValuePages& pages) {
    KeyValuePages::visit(pages, [this](auto& view) { (*this)(view); });
  }
  template <class View>
  requires std::is_base_of_v<ConstView, View>
  void operator()(View& view) {
    if (view.empty()) return;
    kept_.push_back(upload(view, ctx_.device));
    view = View(kept_.back().view());
  }

 private:
  const Context& ctx_;
  std::vector<Tensor> kept_;
};

template <class T> std::vector<T> values(const ConstView& view) {
  const OnHost host(view);
  const auto flat = host.as<T>();
  return {flat.begin(), flat.end()};
}

TEST(PagedFar, HasTheCpusBits) {
  PagedTree tree({.heads = 4, .kv_heads = 2, .head_dim = 16, .stored = DType::i8, .ragged = true},
                 PagedTree::random_tree(5, 20), 5);
  tree.q.emplace(Matrix::random(tree.rows(), 64, DType::f32, 3));
  const std::vector<int32_t> page(static_cast<size_t>(tree.rows()), 0), entry(page.size(), 1);
  constexpr int64_t kLongest = 300;
  std::vector<int64_t> offsets(2 * tree.runs.size(), -1);  // each head of the first run has a place of its own
  offsets[0] = 0, offsets[1] = kLongest;
  const auto computed = [&](Device device) {
    const Compute compute({.device = device, .threads = 2}, 16 << 20);
    const Context& ctx = compute;
    const auto scope = ctx.scratch.scope();
    const Matrix out = Matrix::zeros(tree.rows(), 64, DType::f32), lse = Matrix::zeros(tree.rows(), 4, DType::f32);
    const Matrix mass = Matrix::zeros(1, 2 * kLongest, DType::f32);
    std::vector<int64_t> bytes = {0};
    std::vector<int32_t> fault(page.size(), 5);
    const PagedPlan plan = plan_tiles(tree.visits, tree.rows(), 2, 2, 2);
    PagedAttentionArgs args = tree.arguments(out, lse, plan);
    args.mass = mass.vector(), args.mass_offset = offsets, args.bytes = bytes;
    Moved moved(ctx);
    PagedAttentionArgs::visit(args, moved);
    paged_attention(ctx, args);
    merge_attention(ctx, args.q, args.lse, 16, args.out, upload(lse.view(), ctx.device));
    WritePagesArgs rows{.k = args.q.slice_cols(0, 32),
                        .v = args.q.slice_cols(32, 64),
                        .pages = args.pages,
                        .page_base = 0,
                        .kv_heads = 2,
                        .head_dim = 16,
                        .page = upload(ctx, std::span(page).first(1)),
                        .entry = upload(ctx, std::span(entry).first(1)),
                        .position = {},
                        .fault = {}};
    rows.k = rows.k.slice_rows(0, 1), rows.v = rows.v.slice_rows(0, 1);
    const Tensor there({1}, DType::i32, ctx.device);
    rows.fault = there;
    write_pages(ctx, rows);
    std::vector<float> all = values<float>(args.out);
    for (const TensorView& view : {args.lse, args.mass})
      for (const float x : values<float>(view)) all.push_back(x);
    for (const int8_t code : values<int8_t>(args.pages.k.slice_rows(0, 2))) all.push_back(code);
    all.push_back(static_cast<float>(values<int64_t>(args.bytes)[0]));
    all.push_back(static_cast<float>(values<int32_t>(rows.fault)[0]));
    return all;
  };
  const std::vector<float> near = computed({}), far = computed(device_of("far"));
  EXPECT_EQ(far, near);
  EXPECT_GT(near[near.size() - 2], 1000);
}

}  // namespace
}  // namespace tessera::test

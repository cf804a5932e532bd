#include "kernels/key_value_pages.h"

#include "core/error.h"
#include "kernels/checks.h"

namespace tessera {

void write_pages(const Context& ctx, const WritePagesArgs& args) {
  const Arguments check(ctx, "write_pages", args.k.dtype);
  const int64_t rows = args.k.shape[0], width = args.kv_heads * args.head_dim;
  check.matrix("k", args.k, rows, width);
  check.matrix("v", args.v, rows, width);
  check.pages(args.pages, args.head_dim);
  check.place("page", args.page);
  check.place("position", args.position);
  check.indices("entry", args.entry, args.pages.page_tokens);
  check.count("page", static_cast<int64_t>(args.page.size()), rows);
  check.count("entry", static_cast<int64_t>(args.entry.size()), rows);
  if (!args.pages.position.empty() || !args.position.empty())
    check.count("position", static_cast<int64_t>(args.position.size()), rows);
  check.integers("fault", args.fault, DType::i32, rows);
  if (!is_counting(ctx))
    for (const int32_t page : args.page.host())
      TS_CHECK(page < 0 || page + args.page_base + args.kv_heads <= args.pages.count(), "write_pages: page {} of {}",
               page + args.page_base + args.kv_heads - 1, args.pages.count());
  ctx.kernels.write_pages(ctx, args);
}

}  // namespace tessera

// The ways to share weights and the adapters.

#include "core/error.h"
#include "model/sharing/depth.h"
#include "model/sharing/fold.h"
#include "model/sharing/lora.h"
#include "model/sharing/magnitude.h"
#include "model/sharing/mos.h"
#include "model/sharing/plain.h"
#include "model/sharing/rps.h"

namespace tessera {

const std::vector<AdapterMethod>& adapter_methods() {
  static const std::vector<AdapterMethod> methods = {
      {"lora", "low-rank adapters: own A and B for every weight", {}, make_lora},
      {"mos",
       "mixture of shards: A and B assembled from pools shared by all layers",
       {"equivalent_rank", "shards", "private_rank", "draw", "index_seed"},
       make_mos},
  };
  return methods;
}

const std::vector<SharingMethod>& sharing_methods() {
  static const std::vector<SharingMethod> methods = {
      {"none", "every weight is a number of its own", {}, make_plain},
      {"rps",
       "Stable-RPS: all weights are read from one small pool, folded onto it at random",
       {"compression", "pool", "shared", "min_numel", "seed", "mapper", "layout", "tile_rows", "tile_cols", "precond",
        "kappa", "scale", "sigma_0"},
       make_rps},
      {"depth", "for comparison: neighbouring layers read one block's matrices", {"compression", "blocks"}, make_depth},
      {"magnitude",
       "for comparison: only the weights that are largest at the start are kept",
       {"compression", "pool", "shared", "min_numel"},
       make_magnitude},
      {"fold", "a folded model: some layers of another are left, and neighbours read one block", {}, make_fold},
  };
  return methods;
}

}  // namespace tessera

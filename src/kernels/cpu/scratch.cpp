#include "kernels/cpu/scratch.h"
namespace tessera::cpu {
int64_t rms_norm_backward_scratch_bytes(ConstView, TensorView) { return 0; }
int64_t sum_of_squares_scratch_bytes(int64_t) { return 0; }
}  // namespace tessera::cpu

#pragma once
// The linked CBLAS's sgemm with its own threads: the yardstick. Absent when the build found no CBLAS.

#include <string>

#include "core/tensor.h"
#include "kernels/gemm.h"

#ifdef TESSERA_BLAS_NAME
#include <cblas.h>

// Of these two only the linked library's is there.
extern "C" __attribute__((weak)) void openblas_set_num_threads(int);
extern "C" __attribute__((weak)) char* openblas_get_config();
extern "C" __attribute__((weak)) void bli_thread_set_num_threads(int64_t);

namespace tessera::bench {

inline void set_library_threads(int threads) {
  if (openblas_set_num_threads) openblas_set_num_threads(threads);
  if (bli_thread_set_num_threads) bli_thread_set_num_threads(threads);
}

/// The library's version and which of its kernels it runs, as it says; empty where it does not.
inline std::string library_config() { return openblas_get_config ? openblas_get_config() : ""; }

/// y [m, n] = op(a) op(b) + beta y, all f32 and contiguous. For one row the library has a faster function, of vectors.
inline void library_sgemm(int64_t m, int64_t n, int64_t k, const Tensor& a, Transpose a_transpose, const Tensor& b,
                          Transpose b_transpose, double beta, const Tensor& y) {
  const auto order = [](Transpose t) { return t == Transpose::yes ? CblasTrans : CblasNoTrans; };
  const auto width = [](const Tensor& t) { return static_cast<int>(t.shape()[1]); };
  if (m == 1 && a_transpose == Transpose::no)
    return cblas_sgemv(CblasRowMajor, b_transpose == Transpose::yes ? CblasNoTrans : CblasTrans,
                       static_cast<int>(b.shape()[0]), width(b), 1, b.as<float>().data(), width(b),
                       a.as<float>().data(), 1, static_cast<float>(beta), y.as<float>().data(), 1);
  cblas_sgemm(CblasRowMajor, order(a_transpose), order(b_transpose), static_cast<int>(m), static_cast<int>(n),
              static_cast<int>(k), 1, a.as<float>().data(), width(a), b.as<float>().data(), width(b),
              static_cast<float>(beta), y.as<float>().data(), width(y));
}

}  // namespace tessera::bench
#endif

#pragma once
// Include before any Highway header: which instruction sets are compiled, for each costs compile time and size. AVX2
// and AVX-512 are what machines that train have; the steps below gain little over the portable 128-bit fallback, which
// runs anywhere. That fallback is off by default under g++ 12.2 for a miscompilation of 16-bit high products, which
// these kernels do not use. On ARM it is compiled beside NEON, though no machine needs it, as the plain loops of
// run.target; of vectors without a fixed length (SVE) the tiles could make no arrays.
#define HWY_BROKEN_EMU128 0
#define HWY_COMPILE_ALL_ATTAINABLE
#ifdef TESSERA_NO_AVX3
#define TESSERA_LEFT_OUT HWY_AVX3
#else
#define TESSERA_LEFT_OUT 0
#endif
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | TESSERA_LEFT_OUT)

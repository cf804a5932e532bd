/* Loaded in front of PyTorch (LD_PRELOAD) by scripts/bench. MKL asks these functions whether the processor is Intel's, and takes
   AVX2 kernels on others, whatever they can do: with them, it goes by what the processor has, as on Intel. On an AMD EPYC with
   AVX-512 its product of two square matrices is twice as fast then. */
int mkl_serv_intel_cpu(void) { return 1; }
int mkl_serv_intel_cpu_true(void) { return 1; }

#pragma once
// What the cpu's distillation hands from its portable part to the code of one instruction set.

#include <cstdint>

namespace tessera::cpu {

/// A row of one chunk: exponents of both models are (logit − max) · inverse_temperature.
struct TemperedRow {
  const float* student;
  float* teacher;
  float* student_exp;  // may be null
  int64_t cols;
  float student_max, teacher_max, inverse_temperature;
  float student_sum, teacher_sum, cross;  // of the chunk, out; in the gradient the factors of exponentials, in
};

}  // namespace tessera::cpu

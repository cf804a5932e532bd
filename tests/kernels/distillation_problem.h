#pragma once
// What tests of distill share: a problem, and the answer from whole softmaxes.

#include "harness.h"
#include "kernels/distillation.h"

namespace tessera::test::distillation {

enum class Weight { frozen, trained };

struct Size {
  int64_t rows, dim, teacher_dim, vocab;
};

/// A problem and the outputs of one call.
struct Problem {
  Size size;
  Matrix hidden, weight, teacher_hidden, teacher_weight;
  std::vector<int32_t> labels;
  double temperature = 2, grad_scale = 0.5, kl_grad_scale = 0.75;
  Matrix nll, kl, dhidden, dweight, dweight_before;
  std::vector<int32_t> best;

  explicit Problem(Size s, DType compute = DType::f64, DType stored = DType::f64, double range = 1)
      : size(s),
        hidden(Matrix::random(s.rows, s.dim, compute, 1, range, 2)),
        weight(Matrix::random(s.vocab, s.dim, stored, 2, range)),
        teacher_hidden(Matrix::random(s.rows, s.teacher_dim, compute, 3, range, 1)),
        teacher_weight(Matrix::random(s.vocab, s.teacher_dim, stored, 4, range)),
        nll(1, s.rows, compute),
        kl(1, s.rows, compute),
        dhidden(s.rows, s.dim, compute, 3),
        dweight(Matrix::random(s.vocab, s.dim, compute, 5)),
        dweight_before(dweight.copy()),
        best(static_cast<size_t>(s.rows)) {
    for (int64_t n = 0; n < s.rows; ++n)
      labels.push_back(static_cast<int32_t>(mix64(static_cast<uint64_t>(n)) % static_cast<uint64_t>(s.vocab)));
  }
  DistillArgs args(Weight mode, int64_t chunk = 0) {
    return {.student = {.hidden = hidden.view(), .weight = weight.view()},
            .teacher = {.hidden = teacher_hidden.view(), .weight = teacher_weight.view()},
            .labels = labels,
            .temperature = temperature,
            .grad_scale = grad_scale,
            .kl_grad_scale = kl_grad_scale,
            .nll = nll.vector(),
            .kl = kl.vector(),
            .best = best,
            .dhidden = dhidden,
            .dweight = mode == Weight::trained ? dweight.view() : TensorView(),
            .chunk = chunk};
  }
  /// The student's head and hidden states read what the teacher's do.
  void teach_itself() {
    teacher_hidden = hidden.copy();
    teacher_weight = weight.copy();
  }
};

/// log softmax of logits / temperature, whole.
inline std::vector<double> log_softmax(const std::vector<double>& logits, double temperature) {
  const double max = *std::max_element(logits.begin(), logits.end()) / temperature;
  double sum = 0;
  for (const double z : logits) sum += std::exp(z / temperature - max);
  std::vector<double> result;
  for (const double z : logits) result.push_back(z / temperature - max - std::log(sum));
  return result;
}

inline std::vector<double> logits_of(const Matrix& hidden, const Matrix& weight, int64_t n) {
  std::vector<double> logits(static_cast<size_t>(weight.rows()));
  for (int64_t j = 0; j < weight.rows(); ++j)
    for (int64_t k = 0; k < hidden.cols(); ++k) logits[j] += hidden.at(n, k) * weight.at(j, k);
  return logits;
}

/// The whole softmaxes in f64 with all logits in memory.
struct Truth {
  std::vector<double> nll, kl;
  std::vector<int32_t> best;
  Matrix dhidden, dweight;

  explicit Truth(const Problem& p)
      : dhidden(Matrix::zeros(p.size.rows, p.size.dim, DType::f64)), dweight(p.dweight_before.as(DType::f64)) {
    for (int64_t n = 0; n < p.size.rows; ++n) {
      const auto z = logits_of(p.hidden, p.weight, n);
      const auto plain = log_softmax(z, 1), student = log_softmax(z, p.temperature),
                 teacher = log_softmax(logits_of(p.teacher_hidden, p.teacher_weight, n), p.temperature);
      best.push_back(static_cast<int32_t>(std::max_element(z.begin(), z.end()) - z.begin()));
      nll.push_back(-plain[p.labels[n]]);
      kl.push_back(0);
      for (int64_t j = 0; j < p.size.vocab; ++j) {
        const double t = std::exp(teacher[j]);
        if (t > 0) kl.back() += t * (teacher[j] - student[j]);
        const double g = p.grad_scale * (std::exp(plain[j]) - (j == p.labels[n] ? 1 : 0)) +
                         p.kl_grad_scale * p.temperature * (std::exp(student[j]) - t);
        for (int64_t k = 0; k < p.size.dim; ++k) {
          dhidden.set(n, k, dhidden.at(n, k) + g * p.weight.at(j, k));
          dweight.set(j, k, dweight.at(j, k) + g * p.hidden.at(n, k));
        }
      }
    }
  }
};

}  // namespace tessera::test::distillation

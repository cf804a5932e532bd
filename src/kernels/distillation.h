#pragma once
// Learning from a teacher: cross-entropy, and the Kullback-Leibler divergence from the teacher's distribution at a
// temperature, without the logits of a whole batch.
// The op itself is composed (distillation.cpp), like cross_entropy: backends supply what one chunk of the vocabulary
// needs.

#include "kernels/cross_entropy.h"

namespace tessera {

/// What an online softmax of logits / temperature keeps of each row of one model: vectors of [rows] in the compute
/// dtype.
struct TemperedRows {
  TensorView max, sum, rescale;

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.max, args.sum, args.rescale);
  }
};

/// The same of a student and its teacher, and what joins them.
struct DistillRows {
  TemperedRows student, teacher;
  TensorView cross;  // [rows]

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.student, args.teacher, args.cross);
  }
};

/// One chunk of the vocabulary, for each row, with logits z, of the student (s) and of the teacher (t) alike:
///   m' = max(m, max z),  a = (z − m') / temperature,  e = exp(a),
///   rescale = exp((m − m') / temperature), 0 when m is −inf,
///   sum = sum · rescale + Σ e,
///   cross = Σ e_t · (a_t − a_s) over all columns so far, with the newest maxima; a column with e_t = 0 adds nothing.
/// While a maximum is still −inf, a = z. The op distill_begin sets the rows before the first chunk: max −inf, sums and
/// cross 0.
struct DistillChunkArgs {
  ConstView student;       // [rows, chunk] logits
  TensorView teacher;      // [rows, chunk] in: logits, out: e_t
  TensorView student_exp;  // [rows, chunk] out: e_s; empty to skip
  double temperature;
  DistillRows rows;

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.student, args.teacher, args.student_exp, args.rows);
  }
};

/// The rows behind the last chunk:  kl = cross / sum_t + log(sum_s / sum_t).
/// With grad_scale the sums become the factors of e in the gradient:
///   student.sum <- grad_scale · temperature / sum_s,  teacher.sum <- −grad_scale · temperature / sum_t.
struct DistillFinishArgs {
  DistillRows rows;
  TensorView kl;  // [rows]
  double temperature;
  std::optional<double> grad_scale{};

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.rows, args.kl);
  }
};

/// teacher <- student.sum · e_s + teacher.sum · e_t in place, for one chunk: the gradient with respect to the student's
/// logits, with maxima and factors from distill_finish.
struct DistillGradientArgs {
  ConstView student;   // [rows, chunk] logits
  TensorView teacher;  // [rows, chunk] in: logits, out: the gradient
  double temperature;
  DistillRows rows;

  /// Calls v for every view and array.
  template <class Args, class Visitor> static void visit(Args& args, Visitor&& v) {
    for_each_of(v, args.student, args.teacher, args.rows);
  }
};

/// Where a model's logits come from: hidden · weightᵀ.
struct LogitSource {
  ConstView hidden;          // [rows, dim] compute dtype
  ConstView weight;          // [vocab, dim] compute dtype, f32, bf16 or f16
  WeightRows weight_rows{};  // in place of `weight`
  int64_t vocab = 0;         // rows of the weight, when weight_rows makes them
  int64_t tile = 0;          // rows that weight_rows makes at once; 0: a chunk's
};

/// Fused output projections of a student and its teacher, in chunks of the vocabulary: no [tokens, vocab] buffer. With
/// logits z, P = softmax(z / T):
///   nll[n] = log Σ exp(z_s[n]) − z_s[n, labels[n]],  kl[n] = Σ P_t · log(P_t / P_s)
///   L = grad_scale · Σ nll + kl_grad_scale · T² · Σ kl
///   G = ∂L/∂z_s = grad_scale · (softmax(z_s) − onehot) + kl_grad_scale · T · (P_s − P_t)
///   dhidden  = G · weight_s   (assigned)
///   dweight += Gᵀ · hidden_s
/// nll and best have the bits that cross_entropy gives with the same chunk. kl is below 0 by no more than rounding; of
/// equal logits it is 0, and so is its part of the gradient. It is the sum over columns of the distances from the
/// maxima, so that a constant added to all logits of a row costs no accuracy.
/// With a frozen weight there is one pass over the chunks, in which the three sums of exponentials · weight_s run on,
/// rescaled as the maxima move (Milakov & Gimelshein 2018, arXiv:1805.02867); a trained weight needs a second pass.
/// Rows are taken in blocks, so scratch does not grow with the batch. Nothing is differentiated with respect to the
/// teacher, also where the two read one weight. T² keeps the gradient's size at any T: Hinton, Vinyals & Dean 2015,
/// arXiv:1503.02531.
struct DistillArgs {
  LogitSource student, teacher;  // of one vocabulary; the hidden states may differ in width
  IndexArray<int32_t> labels;    // [rows], each in [0, vocab)
  double temperature = 1;        // T, above 0
  double grad_scale = 1, kl_grad_scale = 1;
  TensorView nll, kl;  // [rows] compute dtype
  TensorView best;     // [rows] i32, arg max of the student's logits; empty to skip
  TensorView dhidden;  // [rows, dim] of the student; empty: no gradients. Needs student.weight; may not alias hidden
  TensorView dweight;  // [vocab, dim] of the student; empty: frozen
  int64_t chunk = 0;   // columns of logits that are summed at once; 0: kChunkColumns
};
void distill(const Context&, const DistillArgs&);

}  // namespace tessera

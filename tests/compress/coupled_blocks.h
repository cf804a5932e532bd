#pragma once
// A model of six blocks, two of which undo each other: what scores of single blocks cannot see.

#include <cmath>

#include "compress/stages_bench.h"

namespace tessera::test {

/// Block 2 writes a large number into a channel that hardly anybody reads, and block 3 takes it away again. Either
/// alone matters most of all blocks; both together do nothing.
class CoupledBlocks : public StagesBench {
 protected:
  static constexpr int64_t kConstant = 0, kCoupled = 1;  // channels

  CoupledBlocks() {
    for (float& x : weight(number_of("model.norm.weight")).as<float>()) x = 6;
    for (float& x : weight(number_of("lm_head.weight")).as<float>()) x *= 5;
    for (int64_t token = 0; token < 23; ++token) {
      at(number_of("model.embed_tokens.weight"), token, kConstant) = 30;
      at(number_of("model.embed_tokens.weight"), token, kCoupled) = 0;
      at(number_of("lm_head.weight"), token, kConstant) = 0;
      at(number_of("lm_head.weight"), token, kCoupled) = token == 0 ? 1 : token == 1 ? -1 : 0;
    }
    for (int layer = 0; layer < 6; ++layer) isolate(layer);
    const double height = 30;
    write(2, height / activation(0));
    write(3, -height / activation(height));
    write_own_choices(60);
  }

  /// Nobody reads or writes the two channels; the others are scaled up in front of each part.
  void isolate(int layer) {
    for (const int norm : {block(layer).input_norm, block(layer).mlp_norm})
      for (int64_t c = 0; c < 16; ++c) weight(norm).as<float>()[static_cast<size_t>(c)] = c < 2 ? 1 : 6;
    for (const int out : {block(layer).o, block(layer).down})
      for (const int64_t row : {kConstant, kCoupled}) clear_row(out, row);
    for (const int in : {block(layer).q, block(layer).k, block(layer).v, block(layer).gate, block(layer).up})
      for (int64_t row = 0; row < weight(in).rows(); ++row)
        for (const int64_t col : {kConstant, kCoupled}) at(in, row, col) = 0;
  }
  /// The block adds nothing but `factor` · activation to the coupled channel.
  void write(int layer, double factor) {
    for (const int number : {block(layer).o, block(layer).down, block(layer).gate, block(layer).up}) clear(number);
    at(block(layer).gate, 0, kConstant) = at(block(layer).up, 0, kConstant) = 1;
    at(block(layer).down, kCoupled, 0) = static_cast<float>(factor);
  }
  /// silu(n) · n of the normed constant, with so much in the coupled channel.
  static double activation(double coupled) {
    const double n = 30 / std::sqrt((30.0 * 30 + coupled * coupled) / 16);
    return n * n / (1 + std::exp(-n));
  }
};

}  // namespace tessera::test

#include "model/rope_table.h"

#include <numbers>

#include "core/device/memory.h"
#include "core/functions/functions.h"

namespace tessera {
namespace {

/// Llama-3's rescaling: wavelengths beyond original/low are stretched by factor, below original/high kept,
/// between blended.
double scaled_frequency(const RopeConfig& rope, double frequency) {
  if (rope.factor == 1) return frequency;
  const double wavelength = 2 * std::numbers::pi / frequency;
  const auto original = static_cast<double>(rope.original_max_position_embeddings);
  if (wavelength < original / rope.high_freq_factor) return frequency;
  if (wavelength > original / rope.low_freq_factor) return frequency / rope.factor;
  const double blend = (original / wavelength - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - blend) * frequency / rope.factor + blend * frequency;
}

}  // namespace

RopeTable make_rope_table(const ModelConfig& config, int64_t positions, DType activations, Device device) {
  const int64_t half = config.head_dim / 2;
  RopeTable table{Tensor({positions, half}, activations), Tensor({positions, half}, activations)};
  for (int64_t i = 0; i < half; ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / static_cast<double>(config.head_dim);
    const double frequency = scaled_frequency(config.rope, functions::pow(config.rope.theta, -exponent));
    for (int64_t p = 0; p < positions; ++p) {
      const double angle = static_cast<double>(p) * frequency;
      const auto [sin, cos] = functions::sin_cos(angle);
      if (activations == DType::f64) {
        table.cos.view().row<double>(p)[i] = cos;
        table.sin.view().row<double>(p)[i] = sin;
      } else {
        table.cos.view().row<float>(p)[i] = static_cast<float>(cos);
        table.sin.view().row<float>(p)[i] = static_cast<float>(sin);
      }
    }
  }
  if (device == Device{}) return table;
  return {upload(table.cos, device), upload(table.sin, device)};
}

}  // namespace tessera

// A batch norm whose input carries a gate: y = weight gate (x - mean) / sqrt(gate^2 variance + eps)
// + bias. The gate all but cancels; the official code has it there (medt.models.AxialAttention).
#pragma once
#include <cmath>

#include "tiles.h"

namespace {

struct Norm {
  double weight, gate, mean, variance, epsilon;

  double inverse() const { return 1 / std::sqrt(gate * gate * variance + epsilon); }
  double factor() const { return weight * gate * inverse(); }
};

// Sums over a channel's elements: of the gradient dy, and of dy (x - mean).
struct NormSums {
  double plain, centred;
};

// dx = of_dy dy + of_x (x - mean) + constant.
struct InputGradient {
  float of_dy, of_x, mean, constant;

  Vec of(Vec dy, Vec x) const { return dy * of_dy + (x - mean) * of_x + constant; }
};

// Adds the gradient of the gate, sets those of weight and bias.
inline InputGradient norm_backward(const Norm& norm, NormSums sums, double count, float* d_weight,
                                   float* d_bias, double* d_gate) {
  const double inverse = norm.inverse(), factor = norm.factor();
  *d_weight = float(norm.gate * inverse * sums.centred);
  *d_bias = float(sums.plain);
  *d_gate += norm.weight * inverse * inverse * inverse * norm.epsilon * sums.centred;
  const double slope = norm.gate * inverse;
  const double of_x = -factor * slope * slope * sums.centred / count;
  return {float(factor), float(of_x), float(norm.mean), float(-factor * sums.plain / count)};
}

// Where only the factor counts, as in a softmax: from the gradient of the factor.
inline double factor_backward(const Norm& norm, double d_factor, float* d_weight, double* d_gate) {
  const double inverse = norm.inverse(), cube = inverse * inverse * inverse;
  *d_weight = float(norm.gate * inverse * d_factor);
  *d_gate += norm.weight * cube * norm.epsilon * d_factor;
  return -0.5 * norm.weight * norm.gate * norm.gate * norm.gate * cube * d_factor;
}

// Sums of a strip's gradient (length, count), idle lanes already 0, with its input.
inline void strip_sums(const Sizes& sizes, const Vec* dy, const Vec* x, const float* mean,
                       int64_t count, NormSums* sums) {
  for (int64_t c = 0; c < count; ++c) {
    Vec plain{}, centred{};
    for (int64_t l = 0; l < sizes.length; ++l) {
      plain += dy[l * count + c];
      centred += dy[l * count + c] * (x[l * count + c] - mean[c]);
    }
    sums[c] = {sum_of_lanes(plain), sum_of_lanes(centred)};
  }
}

// Sum over the tiles of one channel of a head.
inline NormSums total_sums(const Sizes& sizes, const NormSums* strips, int64_t head, int64_t count,
                           int64_t c) {
  NormSums total{0, 0};
  for (int64_t tile = 0; tile < sizes.tiles; ++tile) {
    const NormSums& sums = strips[(head * sizes.tiles + tile) * count + c];
    total.plain += sums.plain;
    total.centred += sums.centred;
  }
  return total;
}

}  // namespace

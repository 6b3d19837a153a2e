// The C interface of the fused layer: gated axial attention with its norms (design: medt/ops).
//
// All tensors are float32. Per channel arrays are head-major, [q (d), k (d), v (2d)] within a head
// of the input and 2d channels of a head of the output. Strides count elements.
#pragma once
#include <cstdint>

extern "C" {

struct MedtShape {
  int64_t batch, heads, channels, length, others;  // channels: d; others: the axis not attended
  int64_t table_columns;                           // 2T - 1, or 0 without positions
  int64_t table_center;                            // the column of the offset 0
};

struct MedtStrides {
  int64_t batch, channel, length, other;
};

// What the layer learns. Without positions `relative` and the position_ pointers are null.
struct MedtParameters {
  const float* qkv_weight;         // (4 heads d), then its bias
  const float* qkv_bias;
  const float* similarity_weight;  // (terms, heads)
  const float* relative;           // (4d, table_columns), rows [q (d), k (d), v (2d)]
  const float* value_weight;       // (2 heads d), then its bias
  const float* value_bias;
  const float* position_weight;
  const float* position_bias;
  float gates[4];  // before the norms of q.Rq, k.Rk, value and position
  float epsilon;
};

// Means and biased variances of the terms before their gates; all of a batch.
struct MedtStatistics {
  float *qkv_mean, *qkv_variance;                // (4 heads d)
  float *similarity_mean, *similarity_variance;  // (terms, heads)
  float *value_mean, *value_variance;            // (2 heads d)
  float *position_mean, *position_variance;
};

// Gradients, overwritten; of the shapes of the parameters.
struct MedtGradients {
  float *qkv_weight, *qkv_bias, *similarity_weight, *relative;
  float *value_weight, *value_bias, *position_weight, *position_bias;
  float* gates;  // (4)
};

// Floats that the forward pass keeps for the backward pass; their address must be divisible by 64.
int64_t medt_saved_size(const MedtShape* shape);

// Lanes of a register, in whose multiples parts of `saved` are laid out.
int medt_lanes();

// The functions return 0, or 1 where memory is lacking.
int medt_forward(const MedtShape* shape, const MedtParameters* parameters, const float* qkv,
                 const MedtStrides* qkv_strides, float* out, const MedtStrides* out_strides,
                 const MedtStatistics* statistics, float* saved, int threads);

int medt_backward(const MedtShape* shape, const MedtParameters* parameters,
                  const MedtStatistics* statistics, const float* saved, const float* d_out,
                  const MedtStrides* d_out_strides, float* d_qkv,
                  const MedtStrides* d_qkv_strides, const MedtGradients* gradients, int threads);

// With the given (running) statistics in place of the batch's; nothing is saved.
int medt_inference(const MedtShape* shape, const MedtParameters* parameters,
                   const MedtStatistics* statistics, const float* qkv,
                   const MedtStrides* qkv_strides, float* out, const MedtStrides* out_strides,
                   int threads);

// The instruction set in use: "avx512", "avx2" or "baseline". MEDT_KERNEL chooses a lower one.
const char* medt_instruction_set();
}

// The layer between its 1x1 convolution and its pooling; compiled once for each instruction set.
#include "backward.h"
#include "forward.h"

#define MEDT_JOIN_(name, suffix) name##_##suffix
#define MEDT_JOIN(name, suffix) MEDT_JOIN_(name, suffix)
#define MEDT_NAME(name) MEDT_JOIN(name, MEDT_INSTRUCTION_SET)

namespace {

template <class Work>
int guarded(Work work) {
  try {
    work();
  } catch (const std::bad_alloc&) {
    return 1;
  }
  return 0;
}

}  // namespace

extern "C" {

int64_t MEDT_NAME(medt_saved_size)(const MedtShape* shape) {
  return Saved(Sizes(*shape), nullptr).floats;
}

int MEDT_NAME(medt_forward)(const MedtShape* shape, const MedtParameters* parameters,
                            const float* qkv, const MedtStrides* qkv_strides, float* out,
                            const MedtStrides* out_strides, const MedtStatistics* statistics,
                            float* saved, int threads) {
  return guarded([&] {
    forward(Sizes(*shape), *parameters, qkv, *qkv_strides, out, *out_strides, *statistics, saved,
            threads);
  });
}

int MEDT_NAME(medt_backward)(const MedtShape* shape, const MedtParameters* parameters,
                             const MedtStatistics* statistics, const float* saved,
                             const float* d_out, const MedtStrides* d_out_strides, float* d_qkv,
                             const MedtStrides* d_qkv_strides, const MedtGradients* gradients,
                             int threads) {
  return guarded([&] {
    backward(Sizes(*shape), *parameters, *statistics, const_cast<float*>(saved), d_out,
             *d_out_strides, d_qkv, *d_qkv_strides, *gradients, threads);
  });
}

int MEDT_NAME(medt_inference)(const MedtShape* shape, const MedtParameters* parameters,
                              const MedtStatistics* statistics, const float* qkv,
                              const MedtStrides* qkv_strides, float* out,
                              const MedtStrides* out_strides, int threads) {
  return guarded([&] {
    inference(Sizes(*shape), *parameters, *statistics, qkv, *qkv_strides, out, *out_strides,
              threads);
  });
}
}

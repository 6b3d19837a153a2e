// Chooses the instruction set when the library is loaded, and one thread in a forked process.
#include <cstdlib>
#include <cstring>
#ifndef _WIN32
#include <pthread.h>
#endif

#include "layer.h"

#define MEDT_DECLARE(set)                                                                        \
  int64_t medt_saved_size_##set(const MedtShape*);                                               \
  int medt_forward_##set(const MedtShape*, const MedtParameters*, const float*,                  \
                         const MedtStrides*, float*, const MedtStrides*, const MedtStatistics*,  \
                         float*, int);                                                           \
  int medt_backward_##set(const MedtShape*, const MedtParameters*, const MedtStatistics*,        \
                          const float*, const float*, const MedtStrides*, float*,                \
                          const MedtStrides*, const MedtGradients*, int);                        \
  int medt_inference_##set(const MedtShape*, const MedtParameters*, const MedtStatistics*,       \
                           const float*, const MedtStrides*, float*, const MedtStrides*, int);

extern "C" {
MEDT_DECLARE(baseline)
#ifdef __x86_64__
MEDT_DECLARE(avx2)
MEDT_DECLARE(avx512)
#endif
}

namespace {

struct Kernels {
  const char* name;
  int lanes;
  decltype(&medt_saved_size_baseline) saved_size;
  decltype(&medt_forward_baseline) forward;
  decltype(&medt_backward_baseline) backward;
  decltype(&medt_inference_baseline) inference;
};

#define MEDT_KERNELS(set, lanes) \
  {#set, lanes, medt_saved_size_##set, medt_forward_##set, medt_backward_##set, medt_inference_##set}

Kernels choose() {
#ifdef __x86_64__
  const char* wish = std::getenv("MEDT_KERNEL");
  auto allowed = [&](const char* name) { return !wish || std::strcmp(wish, name) == 0; };
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl");
  if (avx512 && allowed("avx512")) return MEDT_KERNELS(avx512, 16);
  if (avx2 && (allowed("avx2") || allowed("avx512"))) return MEDT_KERNELS(avx2, 8);
#endif
  return MEDT_KERNELS(baseline, 4);
}

const Kernels kernels = choose();

// OpenMP's threads do not survive a fork, and waiting for them would never end.
bool forked = false;

int usable(int threads) { return forked || threads < 1 ? 1 : threads; }

#ifndef _WIN32
void note_fork() { forked = true; }
const int registered = pthread_atfork(nullptr, nullptr, note_fork);
#endif

}  // namespace

extern "C" {

int64_t medt_saved_size(const MedtShape* shape) { return kernels.saved_size(shape); }

int medt_lanes() { return kernels.lanes; }

int medt_forward(const MedtShape* shape, const MedtParameters* parameters, const float* qkv,
                 const MedtStrides* qkv_strides, float* out, const MedtStrides* out_strides,
                 const MedtStatistics* statistics, float* saved, int threads) {
  return kernels.forward(shape, parameters, qkv, qkv_strides, out, out_strides, statistics, saved,
                         usable(threads));
}

int medt_backward(const MedtShape* shape, const MedtParameters* parameters,
                  const MedtStatistics* statistics, const float* saved, const float* d_out,
                  const MedtStrides* d_out_strides, float* d_qkv,
                  const MedtStrides* d_qkv_strides, const MedtGradients* gradients, int threads) {
  return kernels.backward(shape, parameters, statistics, saved, d_out, d_out_strides, d_qkv,
                          d_qkv_strides, gradients, usable(threads));
}

int medt_inference(const MedtShape* shape, const MedtParameters* parameters,
                   const MedtStatistics* statistics, const float* qkv,
                   const MedtStrides* qkv_strides, float* out, const MedtStrides* out_strides,
                   int threads) {
  return kernels.inference(shape, parameters, statistics, qkv, qkv_strides, out, out_strides,
                           usable(threads));
}

const char* medt_instruction_set() { return kernels.name; }
}

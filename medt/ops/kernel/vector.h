// A register of LANES floats (GCC's and Clang's vector extension) and the functions on it.
#pragma once
#include <cstdint>
#include <cstring>

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Vec __attribute__((vector_size(LANES * 4)));
typedef int32_t IntVec __attribute__((vector_size(LANES * 4)));

inline Vec broadcast(float x) { return x - Vec{}; }

inline Vec as_floats(IntVec x) {
  Vec result;
  std::memcpy(&result, &x, sizeof x);
  return result;
}

inline IntVec as_bits(Vec x) {
  IntVec result;
  std::memcpy(&result, &x, sizeof x);
  return result;
}

inline Vec maximum(Vec a, Vec b) { return a > b ? a : b; }

// In a fixed order, so that sums do not depend on anything but their terms.
inline float sum_of_lanes(Vec x) {
  float total = 0;
  for (int lane = 0; lane < LANES; ++lane) total += x[lane];
  return total;
}

// exp of N numbers up to 80, to 2 units in the last place; below -87 it stays at exp(-87).
// x = (n + f) ln 2 with |f| <= 1/2: adding 1.5 * 2^23 leaves n in the lowest bits of the sum.
// The N chains of operations stand side by side, since one alone leaves the processor waiting.
template <int N>
inline void exponential(Vec* x) {
  const float log2_e = 1.44269504f, shifter = 12582912.0f;
  const float taylor[] = {1.535336188e-4f, 1.339887440e-3f, 9.618437357e-3f, 5.550332548e-2f,
                          2.402264791e-1f, 6.931472028e-1f, 1.0f};  // of 2^f
  Vec shifted[N], f[N], p[N];
  const Vec least = broadcast(-87.0f);
  for (int n = 0; n < N; ++n) x[n] = x[n] < least ? least : x[n];  // NaN stays
  for (int n = 0; n < N; ++n) shifted[n] = x[n] * log2_e + shifter;
  for (int n = 0; n < N; ++n) f[n] = x[n] * log2_e - (shifted[n] - shifter);
  for (int n = 0; n < N; ++n) p[n] = f[n] * taylor[0] + taylor[1];
  for (int term = 2; term < 7; ++term)
    for (int n = 0; n < N; ++n) p[n] = p[n] * f[n] + taylor[term];
  for (int n = 0; n < N; ++n) x[n] = as_floats(as_bits(p[n]) + (as_bits(shifted[n]) << 23));
}

// log(x) for normal, positive x. x = 2^n m with m in [sqrt(1/2), sqrt(2)); log m = 2 artanh z.
inline Vec logarithm(Vec x) {
  const int32_t root_half = 0x3f3504f3;
  IntVec bits = as_bits(x);
  IntVec n = (bits - root_half) >> 23;
  Vec m = as_floats(bits - (n << 23));
  Vec z = (m - 1.0f) / (m + 1.0f), z2 = z * z;
  Vec series = z2 * (1.0f / 9) + 1.0f / 7;
  series = series * z2 + 1.0f / 5;
  series = series * z2 + 1.0f / 3;
  series = series * z2 + 1.0f;
  return __builtin_convertvector(n, Vec) * 0.693147181f + 2.0f * z * series;
}

}  // namespace

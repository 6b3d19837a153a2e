// How the lanes are tiled, the layout of a tile, and running over tiles in parallel.
//
// A lane is one position of the axis that is not attended, of one image; lanes are independent.
// A tile is LANES of them, in the registers side by side; the last tile may have idle lanes, which
// repeat its first one and count nowhere. A strip is a tile of one head: (length, channels) Vecs.
#pragma once
#include <new>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "layer.h"
#include "vector.h"

namespace {

// A whole layer's sizes, all counted once.
struct Sizes : MedtShape {
  int64_t lanes, tiles, strips, terms, offsets;
  bool positions;

  explicit Sizes(const MedtShape& shape) : MedtShape(shape) {
    lanes = batch * others;
    tiles = (lanes + LANES - 1) / LANES;
    strips = heads * tiles;
    positions = table_columns > 0;
    terms = positions ? 3 : 1;
    offsets = 2 * length - 1;
  }
  int64_t in_channels() const { return 4 * heads * channels; }
  int64_t out_channels() const { return 2 * heads * channels; }
  int64_t in_strip() const { return length * 4 * channels; }
  int64_t out_strip() const { return length * 2 * channels; }
  int64_t used_lanes(int64_t tile) const {
    int64_t left = lanes - tile * LANES;
    return left < LANES ? left : LANES;
  }
  // 1 in the lanes of a tile that are used, 0 in idle ones.
  Vec mask(int64_t tile) const {
    Vec mask{};
    for (int64_t lane = 0; lane < used_lanes(tile); ++lane) mask[lane] = 1;
    return mask;
  }
  // Elements behind the mean and the variance of a channel, and of a similarity term.
  double channel_count() const { return double(lanes) * length; }
};

// Memory for numbers, aligned for Vecs and freed at the end of its scope. Throws std::bad_alloc, so
// it must not be made inside a parallel region.
template <class T>
class Buffer {
 public:
  // No byte more than asked for: then AddressSanitizer sees the first one beyond.
  explicit Buffer(int64_t count)
      : data_(static_cast<T*>(::operator new(size_t(count) * sizeof(T), ALIGNMENT))) {}
  ~Buffer() { ::operator delete(data_, ALIGNMENT); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() const { return data_; }
  T& operator[](int64_t index) const { return data_[index]; }

 private:
  static constexpr std::align_val_t ALIGNMENT{64};
  T* data_;
};

template <class T>
inline void fill_zero(T* data, int64_t count) {
  for (int64_t i = 0; i < count; ++i) data[i] = T{};
}

// body(task, scratch) for all tasks, each worker with `scratch` Vecs of its own. What a task
// computes must not depend on the worker: then no result depends on the number of threads.
template <class Body>
void run_parallel(int64_t tasks, int threads, int64_t scratch, Body body) {
  if (threads > tasks) threads = int(tasks);
  Buffer<Vec> memory(scratch * threads);
#ifdef _OPENMP
  if (threads > 1) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int64_t task = 0; task < tasks; ++task)
      body(task, memory.get() + scratch * omp_get_thread_num());
    return;
  }
#endif
  for (int64_t task = 0; task < tasks; ++task) body(task, memory.get());
}

// The strips of a head in a fixed number of ranges, whose sums are added in their order.
struct Ranges {
  int64_t per_head, tiles_each;

  explicit Ranges(const Sizes& sizes) {
    const int64_t wanted = 64;
    int64_t aim = (wanted + sizes.heads - 1) / sizes.heads;
    tiles_each = (sizes.tiles + aim - 1) / aim;
    per_head = (sizes.tiles + tiles_each - 1) / tiles_each;
  }
  int64_t count(const Sizes& sizes) const { return per_head * sizes.heads; }
  int64_t head(int64_t range) const { return range / per_head; }
  int64_t first(int64_t range) const { return range % per_head * tiles_each; }
  int64_t last(int64_t range, const Sizes& sizes) const {
    int64_t end = first(range) + tiles_each;
    return end < sizes.tiles ? end : sizes.tiles;
  }
};

// A norm with its moments at hand, for each channel from some channel on. The mean is subtracted
// first: where it is large, a factor and a shift would cancel.
struct Normalisation {
  const float *mean, *factor, *bias;

  Vec normalised(Vec raw, int64_t channel) const {
    return (raw - mean[channel]) * factor[channel] + bias[channel];
  }
  Normalisation from(int64_t channel) const {
    return {mean + channel, factor + channel, bias + channel};
  }
};

}  // namespace

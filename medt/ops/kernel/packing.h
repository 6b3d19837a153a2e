// Between a strided tensor (images as PyTorch has them) and the strips of one tile.
#pragma once
#include "tiles.h"

namespace {

typedef float Quad __attribute__((vector_size(16)));

#if defined(__clang__) || __GNUC__ >= 12
#define MEDT_SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
typedef int32_t QuadMask __attribute__((vector_size(16)));
#define MEDT_SHUFFLE(a, b, ...) __builtin_shuffle(a, b, QuadMask{__VA_ARGS__})
#endif

// Rows become columns.
inline void transpose(Quad* rows) {
  const Quad a = MEDT_SHUFFLE(rows[0], rows[1], 0, 4, 1, 5);
  const Quad b = MEDT_SHUFFLE(rows[2], rows[3], 0, 4, 1, 5);
  const Quad c = MEDT_SHUFFLE(rows[0], rows[1], 2, 6, 3, 7);
  const Quad d = MEDT_SHUFFLE(rows[2], rows[3], 2, 6, 3, 7);
  rows[0] = MEDT_SHUFFLE(a, b, 0, 1, 4, 5);
  rows[1] = MEDT_SHUFFLE(a, b, 2, 3, 6, 7);
  rows[2] = MEDT_SHUFFLE(c, d, 0, 1, 4, 5);
  rows[3] = MEDT_SHUFFLE(c, d, 2, 3, 6, 7);
}

// The strips (length, count) of one tile, for all heads, `head_step` Vecs apart.
struct TileStrips {
  Vec* first;
  int64_t count, head_step;

  float* at(int64_t position, int64_t channel) const {
    return reinterpret_cast<float*>(first + channel / count * head_step + position * count +
                                    channel % count);
  }
};

// Of an array of strips [head][tile].
inline TileStrips strips_of_tile(const Sizes& sizes, Vec* strips, int64_t count, int64_t tile) {
  const int64_t strip = sizes.length * count;
  return {strips + tile * strip, count, sizes.tiles * strip};
}

// Where the lanes of a tile lie in a strided tensor; idle lanes lie where the first one does.
struct LaneOffsets {
  int64_t of[LANES];
  int64_t used;
  bool adjacent;  // all used, one after the other

  LaneOffsets(const Sizes& sizes, const MedtStrides& strides, int64_t tile)
      : used(sizes.used_lanes(tile)) {
    adjacent = used == LANES;
    for (int64_t lane = 0; lane < LANES; ++lane) {
      const int64_t index = tile * LANES + (lane < used ? lane : 0);
      of[lane] = index / sizes.others * strides.batch + index % sizes.others * strides.other;
      adjacent = adjacent && of[lane] == of[0] + lane;
    }
  }
};

// Channels that can be taken four at a time: all but the rest, where they are adjacent.
inline int64_t channels_by_four(const Sizes& sizes, const MedtStrides& strides, int64_t count) {
  return strides.channel == 1 ? sizes.heads * count / 4 * 4 : 0;
}

inline void pack(const Sizes& sizes, const MedtStrides& strides, const float* from, int64_t tile,
                 TileStrips to) {
  const LaneOffsets lanes(sizes, strides, tile);
  const int64_t by_four = channels_by_four(sizes, strides, to.count);
  for (int64_t position = 0; position < sizes.length; ++position) {
    const float* row = from + position * strides.length;
    for (int64_t channel = 0; channel < by_four; channel += 4)
      for (int64_t lane = 0; lane < LANES; lane += 4) {
        Quad quads[4];
        for (int i = 0; i < 4; ++i)
          std::memcpy(&quads[i], row + lanes.of[lane + i] + channel, sizeof(Quad));
        transpose(quads);
        for (int i = 0; i < 4; ++i)
          std::memcpy(to.at(position, channel + i) + lane, &quads[i], sizeof(Quad));
      }
    for (int64_t channel = by_four; channel < sizes.heads * to.count; ++channel) {
      const float* values = row + channel * strides.channel;
      float* strip = to.at(position, channel);
      if (lanes.adjacent) {
        std::memcpy(strip, values + lanes.of[0], sizeof(Vec));
      } else {
        for (int lane = 0; lane < LANES; ++lane) strip[lane] = values[lanes.of[lane]];
      }
    }
  }
}

// The reverse of `pack`; idle lanes are left out.
inline void unpack(const Sizes& sizes, const MedtStrides& strides, TileStrips from, int64_t tile,
                   float* to) {
  const LaneOffsets lanes(sizes, strides, tile);
  const int64_t by_four = channels_by_four(sizes, strides, from.count);
  for (int64_t position = 0; position < sizes.length; ++position) {
    float* row = to + position * strides.length;
    for (int64_t channel = 0; channel < by_four; channel += 4)
      for (int64_t lane = 0; lane < lanes.used; lane += 4) {
        Quad quads[4];
        for (int i = 0; i < 4; ++i)
          std::memcpy(&quads[i], from.at(position, channel + i) + lane, sizeof(Quad));
        transpose(quads);
        for (int i = 0; i < 4 && lane + i < lanes.used; ++i)
          std::memcpy(row + lanes.of[lane + i] + channel, &quads[i], sizeof(Quad));
      }
    for (int64_t channel = by_four; channel < sizes.heads * from.count; ++channel) {
      float* values = row + channel * strides.channel;
      const float* strip = from.at(position, channel);
      if (lanes.adjacent) {
        std::memcpy(values + lanes.of[0], strip, sizeof(Vec));
      } else {
        for (int64_t lane = 0; lane < lanes.used; ++lane) values[lanes.of[lane]] = strip[lane];
      }
    }
  }
}

}  // namespace

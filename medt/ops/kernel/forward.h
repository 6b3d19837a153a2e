// The layer's forward pass, with the batch's statistics (training) or given ones (inference).
#pragma once
#include "attention.h"
#include "moments.h"
#include "norms.h"
#include "packing.h"

namespace {

// The parts of what the forward pass keeps, one after the other in `memory`.
struct Saved {
  Vec *packed, *value, *position, *log_sum;
  PositionMoments q, k;
  double* content_mean;  // of q.k, by head
  int64_t floats;

  Saved(const Sizes& s, float* memory) : floats(0) {
    auto take = [&](int64_t count) {
      float* part = memory ? memory + floats : nullptr;  // null where only the size counts
      floats += (count + LANES - 1) / LANES * LANES;
      return part;
    };
    auto take_vecs = [&](int64_t count) { return reinterpret_cast<Vec*>(take(count * LANES)); };
    const int64_t vectors = s.positions ? s.heads * s.length * s.channels : 0;
    packed = take_vecs(s.strips * s.in_strip());
    value = take_vecs(s.strips * s.out_strip());
    position = take_vecs(s.positions ? s.strips * s.out_strip() : 0);
    log_sum = take_vecs(s.strips * s.length);
    q = {take(vectors), take(vectors * s.channels)};
    k = {take(vectors), take(vectors * s.channels)};
    content_mean = reinterpret_cast<double*>(take(2 * s.heads));
  }
};

inline PositionMoments moments_of_head(const Sizes& s, PositionMoments moments, int64_t head) {
  const int64_t row = s.length * s.channels;
  return {moments.mean + head * row, moments.covariance + head * row * s.channels};
}

inline Norm qkv_norm(const MedtParameters& p, const MedtStatistics& t, int64_t channel) {
  return {p.qkv_weight[channel], 1, t.qkv_mean[channel], t.qkv_variance[channel], p.epsilon};
}

// Of a term (0: q.k, 1: q.Rq, 2: k.Rk) of a head.
inline Norm similarity_norm(const Sizes& s, const MedtParameters& p, const MedtStatistics& t,
                            int64_t term, int64_t head) {
  const int64_t index = term * s.heads + head;
  return {p.similarity_weight[index], term == 0 ? 1.0 : p.gates[term - 1],
          t.similarity_mean[index], t.similarity_variance[index], p.epsilon};
}

inline Norm value_norm(const MedtParameters& p, const MedtStatistics& t, int64_t channel) {
  return {p.value_weight[channel], p.gates[2], t.value_mean[channel], t.value_variance[channel],
          p.epsilon};
}

inline Norm position_norm(const MedtParameters& p, const MedtStatistics& t, int64_t channel) {
  return {p.position_weight[channel], p.gates[3], t.position_mean[channel],
          t.position_variance[channel], p.epsilon};
}

// What the passes over the strips need of the norms and tables; each part once its moments are known.
class Coefficients {
 public:
  Buffer<float> scale;  // (terms, heads), of the similarity terms

  Coefficients(const Sizes& s, const MedtParameters& p, const MedtStatistics& t)
      : scale(s.terms * s.heads), s_(s), p_(p), t_(t), input_(s.in_channels()),
        value_(s.out_channels()), position_(s.out_channels()),
        table_q_(s.heads * s.offsets * s.channels), table_k_(s.heads * s.offsets * s.channels),
        table_v_(s.offsets * 2 * s.channels) {}

  void set_input() {
    for (int64_t channel = 0; channel < s_.in_channels(); ++channel)
      input_[channel] = float(qkv_norm(p_, t_, channel).factor());
  }

  void set_similarity() {
    for (int64_t term = 0; term < s_.terms; ++term)
      for (int64_t head = 0; head < s_.heads; ++head)
        scale[term * s_.heads + head] = float(similarity_norm(s_, p_, t_, term, head).factor());
    if (!s_.positions) return;
    const int64_t d = s_.channels;
    for (int64_t offset = 0; offset < s_.offsets; ++offset) {
      const int64_t ahead = offset - (s_.length - 1);  // j - i
      const float* q_column = p_.relative + s_.table_center - ahead;
      const float* k_column = p_.relative + d * s_.table_columns + s_.table_center + ahead;
      const float* v_column = q_column + 2 * d * s_.table_columns;
      for (int64_t c = 0; c < 2 * d; ++c)
        table_v_[offset * 2 * d + c] = v_column[c * s_.table_columns];
      for (int64_t head = 0; head < s_.heads; ++head)
        for (int64_t c = 0; c < d; ++c) {
          const int64_t entry = (head * s_.offsets + offset) * d + c;
          table_q_[entry] = q_column[c * s_.table_columns] * scale[s_.heads + head];
          table_k_[entry] = k_column[c * s_.table_columns] * scale[2 * s_.heads + head];
        }
    }
  }

  void set_output() {
    for (int64_t channel = 0; channel < s_.out_channels(); ++channel) {
      value_[channel] = float(value_norm(p_, t_, channel).factor());
      if (s_.positions) position_[channel] = float(position_norm(p_, t_, channel).factor());
    }
  }

  Normalisation input_of(int64_t head) const {
    return Normalisation{t_.qkv_mean, input_.get(), p_.qkv_bias}.from(head * 4 * s_.channels);
  }
  Normalisation value_of(int64_t head) const {
    return Normalisation{t_.value_mean, value_.get(), p_.value_bias}.from(head * 2 * s_.channels);
  }
  Normalisation position_of(int64_t head) const {
    if (!s_.positions) return {};
    return Normalisation{t_.position_mean, position_.get(), p_.position_bias}.from(
        head * 2 * s_.channels);
  }
  Tables tables_of(int64_t head) const {
    const int64_t first = head * s_.offsets * s_.channels;
    return {table_q_.get() + first, table_k_.get() + first, table_v_.get()};
  }

 private:
  const Sizes& s_;
  const MedtParameters& p_;
  const MedtStatistics& t_;
  Buffer<float> input_, value_, position_, table_q_, table_k_, table_v_;
};

using Attend = decltype(&attend<0, true>);

template <bool P>
Attend attend_for(int64_t d) {
  return d == 1 ? attend<1, P> : d == 2 ? attend<2, P> : d == 4 ? attend<4, P>
       : d == 8 ? attend<8, P> : attend<0, P>;
}

// The normalised sum of the two terms of a strip.
inline void combine_terms(const Sizes& s, const Coefficients& by, int64_t head, const Vec* value,
                          const Vec* position, Vec* out) {
  const int64_t count = 2 * s.channels;
  const Normalisation of_value = by.value_of(head), of_position = by.position_of(head);
  for (int64_t l = 0; l < s.length; ++l)
    for (int64_t c = 0; c < count; ++c) {
      Vec sum = of_value.normalised(value[l * count + c], c);
      if (s.positions) sum += of_position.normalised(position[l * count + c], c);
      out[l * count + c] = sum;
    }
}

// Statistics of q.k, and with positions of q.Rq and k.Rk, from the packed strips.
inline void similarity_moments(const Sizes& s, const MedtParameters& p, const MedtStatistics& t,
                               const Coefficients& by, Saved& saved, int threads) {
  const int64_t d = s.channels, row = d + d * d, sums = s.positions ? 2 * s.length * row : 0;
  const Ranges ranges(s);
  Buffer<Vec> dots(s.strips), spreads(s.strips);
  Buffer<double> of_ranges(ranges.count(s) * sums);
  run_parallel(ranges.count(s), threads, sums + lane_scratch(s) + d, [&](int64_t range, Vec* scratch) {
    const int64_t head = ranges.head(range);
    const Normalisation in = by.input_of(head);
    Vec *q_sums = scratch, *k_sums = scratch + sums / 2, *rest = scratch + sums;
    fill_zero(scratch, sums);
    for (int64_t tile = ranges.first(range); tile < ranges.last(range, s); ++tile) {
      const int64_t strip = head * s.tiles + tile;
      const Vec* raw = saved.packed + strip * s.in_strip();
      LaneMoments lanes(s, raw, in, rest);
      product_moments(d, lanes.q_mean, lanes.q_covariance, lanes.k_mean, lanes.k_covariance,
                      &dots[strip], &spreads[strip]);
      if (!s.positions) continue;
      add_position_sums(s, raw, in, s.mask(tile), q_sums, rest);
      add_position_sums(s, raw + d, in.from(d), s.mask(tile), k_sums, rest);
    }
    for (int64_t x = 0; x < sums; ++x) of_ranges[range * sums + x] = sum_of_lanes(scratch[x]);
  });
  for (int64_t head = 0; head < s.heads; ++head) {
    double count = 0, mean = 0, squares = 0, spread = 0;
    for (int64_t tile = 0; tile < s.tiles; ++tile)
      for (int64_t lane = 0; lane < s.used_lanes(tile); ++lane) {
        const double dot = dots[head * s.tiles + tile][lane], step = dot - mean;
        mean += step / ++count;
        squares += step * (dot - mean);
        spread += spreads[head * s.tiles + tile][lane];
      }
    saved.content_mean[head] = mean;
    t.similarity_mean[head] = float(mean);
    t.similarity_variance[head] = float((squares + spread) / count);
  }
  if (!s.positions) return;
  const Windows q_windows(s, p.relative), k_windows(s, p.relative + d * s.table_columns);
  for (int64_t head = 0; head < s.heads; ++head) {
    const double* of_head = of_ranges.get() + head * ranges.per_head * sums;
    const float* bias = p.qkv_bias + head * 4 * d;
    for (int64_t side = 0; side < 2; ++side) {
      const PositionMoments x = moments_of_head(s, side ? saved.k : saved.q, head);
      const int64_t index = (1 + side) * s.heads + head;
      finish_position_moments(s, of_head + side * sums / 2, ranges.per_head, sums,
                              bias + side * d, x);
      position_term(s, x, side ? k_windows : q_windows, t.similarity_mean + index,
                    t.similarity_variance + index);
    }
  }
}

inline void forward(const Sizes& s, const MedtParameters& p, const float* qkv,
                    const MedtStrides& qkv_strides, float* out, const MedtStrides& out_strides,
                    const MedtStatistics& t, float* memory, int threads) {
  const int64_t in_count = 4 * s.channels, out_count = 2 * s.channels;
  Saved saved(s, memory);
  Coefficients by(s, p, t);
  Buffer<Moment> in_moments(s.strips * in_count), value_moments(s.strips * out_count);
  Buffer<Moment> position_moments(s.positions ? s.strips * out_count : 0);
  run_parallel(s.tiles, threads, 0, [&](int64_t tile, Vec*) {
    pack(s, qkv_strides, qkv, tile, strips_of_tile(s, saved.packed, in_count, tile));
    for (int64_t head = 0; head < s.heads; ++head) {
      const int64_t strip = head * s.tiles + tile;
      strip_moments(s, saved.packed + strip * s.in_strip(), in_count, tile,
                    &in_moments[strip * in_count]);
    }
  });
  combine_moments(s, in_moments.get(), in_count, t.qkv_mean, t.qkv_variance);
  by.set_input();
  similarity_moments(s, p, t, by, saved, threads);
  by.set_similarity();
  const Attend attend_strip = s.positions ? attend_for<true>(s.channels) : attend_for<false>(s.channels);
  run_parallel(s.strips, threads, attend_scratch(s), [&](int64_t strip, Vec* scratch) {
    const int64_t head = strip / s.tiles, tile = strip % s.tiles;
    Vec *value = saved.value + strip * s.out_strip(), *position = saved.position + strip * s.out_strip();
    attend_strip(s, saved.packed + strip * s.in_strip(), by.input_of(head), by.scale[head],
                 by.tables_of(head), value, position, saved.log_sum + strip * s.length, scratch);
    strip_moments(s, value, out_count, tile, &value_moments[strip * out_count]);
    if (s.positions) strip_moments(s, position, out_count, tile, &position_moments[strip * out_count]);
  });
  combine_moments(s, value_moments.get(), out_count, t.value_mean, t.value_variance);
  if (s.positions)
    combine_moments(s, position_moments.get(), out_count, t.position_mean, t.position_variance);
  by.set_output();
  run_parallel(s.tiles, threads, s.heads * s.out_strip(), [&](int64_t tile, Vec* sums) {
    for (int64_t head = 0; head < s.heads; ++head) {
      const int64_t first = (head * s.tiles + tile) * s.out_strip();
      combine_terms(s, by, head, saved.value + first, saved.position + first,
                    sums + head * s.out_strip());
    }
    unpack(s, out_strides, {sums, out_count, s.out_strip()}, tile, out);
  });
}

inline void inference(const Sizes& s, const MedtParameters& p, const MedtStatistics& t,
                      const float* qkv, const MedtStrides& qkv_strides, float* out,
                      const MedtStrides& out_strides, int threads) {
  Coefficients by(s, p, t);
  by.set_input();
  by.set_similarity();
  by.set_output();
  const Attend attend_strip = s.positions ? attend_for<true>(s.channels) : attend_for<false>(s.channels);
  const int64_t packed_size = s.heads * s.in_strip(), out_size = s.heads * s.out_strip();
  const int64_t scratch_size = packed_size + out_size + 2 * s.out_strip() + attend_scratch(s);
  run_parallel(s.tiles, threads, scratch_size, [&](int64_t tile, Vec* packed) {
    Vec *sums = packed + packed_size, *value = sums + out_size, *position = value + s.out_strip();
    Vec* scratch = position + s.out_strip();
    pack(s, qkv_strides, qkv, tile, {packed, 4 * s.channels, s.in_strip()});
    for (int64_t head = 0; head < s.heads; ++head) {
      attend_strip(s, packed + head * s.in_strip(), by.input_of(head), by.scale[head],
                   by.tables_of(head), value, position, nullptr, scratch);
      combine_terms(s, by, head, value, position, sums + head * s.out_strip());
    }
    unpack(s, out_strides, {sums, 2 * s.channels, s.out_strip()}, tile, out);
  });
}

}  // namespace

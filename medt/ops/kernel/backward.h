// The layer's backward pass, for the batch's statistics.
#pragma once
#include "forward.h"

namespace {

using AttendBackward = decltype(&attend_backward<0, true>);

template <bool P>
AttendBackward attend_backward_for(int64_t d) {
  return d == 1 ? attend_backward<1, P> : d == 2 ? attend_backward<2, P>
       : d == 4 ? attend_backward<4, P> : d == 8 ? attend_backward<8, P>
       : attend_backward<0, P>;
}

// A term's gradient (length, 2d) from that of the norm's output; idle lanes get 0.
inline void term_gradient(const Sizes& s, const Vec* d_out, const Vec* term,
                          const InputGradient* by, Vec mask, Vec* gradient) {
  const int64_t count = 2 * s.channels;
  for (int64_t l = 0; l < s.length; ++l)
    for (int64_t c = 0; c < count; ++c)
      gradient[l * count + c] = by[c].of(d_out[l * count + c], term[l * count + c]) * mask;
}

// The gradients of the tables and of the similarity scales (terms, heads), before the scales'
// own statistics count; `sums` holds (offsets, 4d) and the content's for each range.
inline void table_gradients(const Sizes& s, const MedtParameters& p, const Coefficients& by,
                            const Ranges& ranges, const double* sums, double* d_scale,
                            double* d_relative) {
  const int64_t d = s.channels, row = s.offsets * 4 * d + 1;
  auto total = [&](int64_t head, int64_t x) {
    double value = 0;
    for (int64_t range = 0; range < ranges.per_head; ++range)
      value += sums[(head * ranges.per_head + range) * row + x];
    return value;
  };
  for (int64_t head = 0; head < s.heads; ++head) d_scale[head] = total(head, row - 1);
  if (!s.positions) return;
  for (int64_t head = 0; head < s.heads; ++head)
    for (int64_t c = 0; c < 4 * d; ++c) {
      const int64_t term = c < d ? 1 : c < 2 * d ? 2 : 0;
      const float* table = p.relative + c * s.table_columns + s.table_center;
      double* d_table = d_relative + c * s.table_columns + s.table_center;
      double mean = 0;  // cancels in the softmax, and less is lost without it
      for (int64_t ahead = 1 - s.length; ahead < s.length; ++ahead) mean += table[ahead];
      mean = term == 1 ? mean / double(s.offsets) : 0;
      for (int64_t offset = 0; offset < s.offsets; ++offset) {
        const int64_t ahead = offset - (s.length - 1), column = term == 2 ? ahead : -ahead;
        const int64_t x = c < d ? offset * d + c
                        : c < 2 * d ? (s.offsets + offset) * d + c - d
                        : s.offsets * 2 * d + offset * 2 * d + c - 2 * d;
        const double sum = total(head, x);
        if (term == 0) {
          d_table[column] += sum;
        } else {
          d_table[column] += sum * by.scale[term * s.heads + head];
          d_scale[term * s.heads + head] += sum * (table[column] - mean);
        }
      }
    }
}

inline void backward(const Sizes& s, const MedtParameters& p, const MedtStatistics& t,
                     float* memory, const float* d_out, const MedtStrides& d_out_strides,
                     float* d_qkv, const MedtStrides& d_qkv_strides, const MedtGradients& to,
                     int threads) {
  const int64_t d = s.channels, in_count = 4 * d, out_count = 2 * d;
  const Saved saved(s, memory);
  Coefficients by(s, p, t);
  by.set_input();
  by.set_similarity();

  // The norms of the two terms.
  Buffer<Vec> d_sum(s.strips * s.out_strip());
  Buffer<NormSums> value_sums(s.strips * out_count), position_sums(s.strips * out_count);
  run_parallel(s.tiles, threads, 0, [&](int64_t tile, Vec*) {
    const Vec mask = s.mask(tile);
    pack(s, d_out_strides, d_out, tile, strips_of_tile(s, d_sum.get(), out_count, tile));
    for (int64_t head = 0; head < s.heads; ++head) {
      const int64_t strip = head * s.tiles + tile, first = strip * s.out_strip();
      Vec* packed = d_sum.get() + first;
      for (int64_t x = 0; x < s.out_strip(); ++x) packed[x] *= mask;
      strip_sums(s, packed, saved.value + first, t.value_mean + head * out_count, out_count,
                 &value_sums[strip * out_count]);
      if (s.positions)
        strip_sums(s, packed, saved.position + first, t.position_mean + head * out_count, out_count,
                   &position_sums[strip * out_count]);
    }
  });
  double d_gates[4] = {0, 0, 0, 0}, no_gate = 0;
  Buffer<InputGradient> of_value(s.out_channels()), of_position(s.out_channels());
  for (int64_t channel = 0; channel < s.out_channels(); ++channel) {
    const int64_t head = channel / out_count, c = channel % out_count;
    of_value[channel] = norm_backward(
        value_norm(p, t, channel), total_sums(s, value_sums.get(), head, out_count, c),
        s.channel_count(), to.value_weight + channel, to.value_bias + channel, &d_gates[2]);
    if (s.positions)
      of_position[channel] = norm_backward(
          position_norm(p, t, channel), total_sums(s, position_sums.get(), head, out_count, c),
          s.channel_count(), to.position_weight + channel, to.position_bias + channel, &d_gates[3]);
  }

  // The attention.
  const Ranges ranges(s);
  const int64_t row = s.offsets * in_count + 1;
  Buffer<Vec> d_packed(s.strips * s.in_strip());
  Buffer<double> sums(ranges.count(s) * row);
  const AttendBackward attend_strip =
      s.positions ? attend_backward_for<true>(d) : attend_backward_for<false>(d);
  const int64_t scratch_size = row + 2 * s.out_strip() + attend_backward_scratch(s);
  run_parallel(ranges.count(s), threads, scratch_size, [&](int64_t range, Vec* scratch) {
    const int64_t head = ranges.head(range);
    const RangeSums range_sums{scratch, scratch + s.offsets * d, scratch + s.offsets * 2 * d,
                               scratch + row - 1};
    Vec *d_value = scratch + row, *d_position = d_value + s.out_strip();
    fill_zero(scratch, row);
    for (int64_t tile = ranges.first(range); tile < ranges.last(range, s); ++tile) {
      const int64_t strip = head * s.tiles + tile, first = strip * s.out_strip();
      const Vec *value = saved.value + first, *position = saved.position + first;
      term_gradient(s, d_sum.get() + first, value, &of_value[head * out_count], s.mask(tile),
                    d_value);
      if (s.positions)
        term_gradient(s, d_sum.get() + first, position, &of_position[head * out_count],
                      s.mask(tile), d_position);
      attend_strip(s, saved.packed + strip * s.in_strip(), by.input_of(head), by.scale[head],
                   by.tables_of(head), saved.log_sum + strip * s.length, value, position, d_value,
                   d_position, d_packed.get() + strip * s.in_strip(), range_sums,
                   d_position + s.out_strip());
    }
    for (int64_t x = 0; x < row; ++x) sums[range * row + x] = sum_of_lanes(scratch[x]);
  });

  // The norms of the similarity terms.
  Buffer<double> d_scale(s.terms * s.heads), d_variance(s.terms * s.heads);
  Buffer<double> d_relative(in_count * s.table_columns);
  fill_zero(d_scale.get(), s.terms * s.heads);
  fill_zero(d_relative.get(), in_count * s.table_columns);
  table_gradients(s, p, by, ranges, sums.get(), d_scale.get(), d_relative.get());
  for (int64_t term = 0; term < s.terms; ++term)
    for (int64_t head = 0; head < s.heads; ++head) {
      const int64_t index = term * s.heads + head;
      d_variance[index] =
          factor_backward(similarity_norm(s, p, t, term, head), d_scale[index],
                          to.similarity_weight + index, term ? &d_gates[term - 1] : &no_gate);
    }
  const int64_t vectors = s.positions ? s.heads * s.length * d : 0;
  Buffer<float> alpha(2 * vectors), beta(2 * vectors * d);
  if (s.positions)
    for (int64_t side = 0; side < 2; ++side) {
      const float* table = p.relative + side * d * s.table_columns;
      const Windows windows(s, table);
      for (int64_t head = 0; head < s.heads; ++head) {
        const int64_t index = (1 + side) * s.heads + head;
        const int64_t first = side * vectors + head * s.length * d;
        position_term_backward(s, moments_of_head(s, side ? saved.k : saved.q, head), windows,
                               table, t.similarity_mean[index], d_variance[index],
                               d_relative.get() + side * d * s.table_columns, &alpha[first],
                               &beta[first * d]);
      }
    }

  // Through the moments to q and k, and the norm of qkv.
  Buffer<NormSums> in_sums(s.strips * in_count);
  run_parallel(s.strips, threads, lane_scratch(s) + d, [&](int64_t strip, Vec* scratch) {
    const int64_t head = strip / s.tiles, tile = strip % s.tiles;
    const Vec* raw = saved.packed + strip * s.in_strip();
    Vec* gradient = d_packed.get() + strip * s.in_strip();
    const Normalisation in = by.input_of(head);
    content_term_backward(s, raw, in, saved.content_mean[head], d_variance[head], gradient,
                          scratch);
    for (int64_t side = 0; side < 2 && s.positions; ++side)
      add_affine(s, raw + side * d, in.from(side * d), &alpha[side * vectors + head * s.length * d],
                 &beta[(side * vectors + head * s.length * d) * d], gradient + side * d, scratch);
    const Vec mask = s.mask(tile);
    for (int64_t x = 0; x < s.in_strip(); ++x) gradient[x] *= mask;
    strip_sums(s, gradient, raw, t.qkv_mean + head * in_count, in_count,
               &in_sums[strip * in_count]);
  });
  Buffer<InputGradient> of_input(s.in_channels());
  for (int64_t channel = 0; channel < s.in_channels(); ++channel)
    of_input[channel] = norm_backward(
        qkv_norm(p, t, channel),
        total_sums(s, in_sums.get(), channel / in_count, in_count, channel % in_count),
        s.channel_count(), to.qkv_weight + channel, to.qkv_bias + channel, &no_gate);
  run_parallel(s.tiles, threads, 0, [&](int64_t tile, Vec*) {
    for (int64_t head = 0; head < s.heads; ++head) {
      const int64_t first = (head * s.tiles + tile) * s.in_strip();
      const InputGradient* of = &of_input[head * in_count];
      Vec* gradient = d_packed.get() + first;
      const Vec* raw = saved.packed + first;
      for (int64_t l = 0; l < s.length; ++l, gradient += in_count, raw += in_count)
        for (int64_t c = 0; c < in_count; ++c)
          gradient[c] = of[c].of(gradient[c], raw[c]);
    }
    unpack(s, d_qkv_strides, strips_of_tile(s, d_packed.get(), in_count, tile), tile, d_qkv);
  });
  for (int64_t x = 0; x < in_count * s.table_columns; ++x) to.relative[x] = float(d_relative[x]);
  for (int gate = 0; gate < 4; ++gate) to.gates[gate] = float(d_gates[gate]);
}

}  // namespace

// Attention of one strip, forward and backward. No length x length tensor is written to memory.
//
//   logit(i, j) = s_qk q_i . (k_j - mean k) + q_i . Q_ij + k_j . K_ij
//   value(i) = sum_j p_ij v_j,  position(i) = sum_j p_ij R_ij,  p = softmax over j
//
// Q, K carry their scales. The mean of the keys cancels in the softmax; without it the gradient of
// s_qk does not cancel in float32. The backward pass recomputes p from the log-sum-exp, as flash
// attention does (arXiv 2205.14135).
#pragma once
#include "tiles.h"

namespace {

// Tables of one head by offset o = j - i + length - 1: q and k (offsets, d), scaled; v (offsets, 2d).
struct Tables {
  const float *q, *k, *v;
};

// The number of channels, known when compiled for D > 0.
template <int D>
inline int64_t channels_of(const Sizes& sizes) {
  return D > 0 ? D : sizes.channels;
}

// Keys of a strip side by side, `stride` Vecs a position: k - mean, k, v. The mean goes to `mean`.
template <int D>
void prepare_keys(const Sizes& sizes, const Vec* raw, Normalisation in, Vec* keys, int64_t stride,
                  Vec* mean) {
  const int64_t d = channels_of<D>(sizes);
  for (int64_t c = 0; c < d; ++c) {
    Vec sum{};
    for (int64_t j = 0; j < sizes.length; ++j) sum += raw[(j * 4 + 1) * d + c];
    mean[c] = sum / float(sizes.length);
  }
  for (int64_t j = 0; j < sizes.length; ++j) {
    Vec* key = keys + j * stride;
    for (int64_t c = 0; c < d; ++c) {
      const Vec k = raw[(j * 4 + 1) * d + c];
      key[c] = (k - mean[c]) * in.factor[d + c];
      key[d + c] = in.normalised(k, d + c);
    }
    for (int64_t c = 0; c < 2 * d; ++c)
      key[2 * d + c] = in.normalised(raw[(j * 4 + 2) * d + c], 2 * d + c);
  }
}

inline int64_t attend_scratch(const Sizes& sizes) {
  return sizes.length * (4 * sizes.channels + 1) + 7 * sizes.channels;
}

// Value and position terms (length, 2d) of a strip of raw inputs, and its log-sum-exp (length),
// unless `log_sum` is null.
template <int D, bool P>
void attend(const Sizes& sizes, const Vec* raw, Normalisation in, float scale, Tables tables, Vec* value,
            Vec* position, Vec* log_sum, Vec* scratch) {
  const int64_t d = channels_of<D>(sizes), length = sizes.length;
  Vec* keys = scratch;
  Vec* logits = keys + length * 4 * d;
  Vec* wide = logits + length;
  Vec narrow[D > 0 ? 7 * D : 1];
  Vec* local = D > 0 ? narrow : wide;
  Vec *q = local, *scaled_q = q + d, *sum_v = scaled_q + d, *sum_r = sum_v + 2 * d;
  prepare_keys<D>(sizes, raw, in, keys, 4 * d, sum_r + 2 * d);
  for (int64_t i = 0; i < length; ++i) {
    for (int64_t c = 0; c < d; ++c) {
      q[c] = in.normalised(raw[i * 4 * d + c], c);
      scaled_q[c] = q[c] * scale;
    }
    const int64_t first = length - 1 - i;
    Vec peak = broadcast(-__FLT_MAX__);
    for (int64_t j = 0; j < length; ++j) {
      const Vec* key = keys + j * 4 * d;
      Vec logit{};
      for (int64_t c = 0; c < d; ++c) {
        logit += scaled_q[c] * key[c];
        if (P) logit += q[c] * tables.q[(first + j) * d + c];
        if (P) logit += key[d + c] * tables.k[(first + j) * d + c];
      }
      logits[j] = logit;
      peak = maximum(logit, peak);
    }
    Vec total{};
    for (int64_t c = 0; c < 2 * d; ++c) sum_v[c] = sum_r[c] = Vec{};
    auto add = [&](Vec p, int64_t j) {
      const Vec* v = keys + (j * 4 + 2) * d;
      total += p;
      for (int64_t c = 0; c < 2 * d; ++c) {
        sum_v[c] += p * v[c];
        if (P) sum_r[c] += p * tables.v[(first + j) * 2 * d + c];
      }
    };
    int64_t j = 0;
    for (; j + 1 < length; j += 2) {
      Vec p[] = {logits[j] - peak, logits[j + 1] - peak};
      exponential<2>(p);
      add(p[0], j);
      add(p[1], j + 1);
    }
    if (j < length) {
      Vec p[] = {logits[j] - peak};
      exponential<1>(p);
      add(p[0], j);
    }
    Vec inverse = 1.0f / total;
    for (int64_t c = 0; c < 2 * d; ++c) {
      value[i * 2 * d + c] = sum_v[c] * inverse;
      if (P) position[i * 2 * d + c] = sum_r[c] * inverse;
    }
    if (log_sum) log_sum[i] = peak + logarithm(total);
  }
}

// Sums over a range of strips of one head. Those of the tables (offsets) run over lanes, too, once
// their lanes are added: of dlogit q and dlogit k (d), and of p dposition (2d).
struct RangeSums {
  Vec *q, *k, *v;
  Vec* content;  // of dlogit q.k
};

// Pairs that are computed side by side, as far as the registers go.
template <int D>
constexpr int SIDE_BY_SIDE = D == 1 || D == 2 ? 2 : 1;

// N pairs of a query and a key on one diagonal, from the rows `queries` and `keys` on; `sums` gets
// dlogit q and dlogit k (d) and p dposition (2d). Returns the sum of dlogit q.k.
template <int D, bool P, int N>
inline Vec pairs_backward(int64_t channels, Vec* queries, Vec* keys, float scale, Tables table,
                          Vec* sums) {
  const int64_t d = D > 0 ? D : channels, key_size = 7 * d, query_size = 6 * d + 2;
  Vec product[N], p[N], gradient[N];
  for (int n = 0; n < N; ++n) {
    const Vec *query = queries + n * query_size, *key = keys + n * key_size;
    product[n] = Vec{};
    p[n] = query[6 * d];
    for (int64_t c = 0; c < d; ++c) {
      product[n] += query[c] * key[c];
      if (P) p[n] += query[c] * table.q[c];
      if (P) p[n] += key[d + c] * table.k[c];
    }
    p[n] += product[n] * scale;
  }
  exponential<N>(p);
  for (int n = 0; n < N; ++n) {
    const Vec* query = queries + n * query_size;
    Vec* key = keys + n * key_size;
    gradient[n] = query[6 * d + 1];
    for (int64_t c = 0; c < 2 * d; ++c) {
      gradient[n] += query[d + c] * key[2 * d + c];
      key[5 * d + c] += p[n] * query[d + c];
      if (P) gradient[n] += query[3 * d + c] * table.v[c];
      if (P) sums[2 * d + c] += p[n] * query[3 * d + c];
    }
  }
  Vec content{};
  for (int n = 0; n < N; ++n) {
    Vec *query = queries + n * query_size, *key = keys + n * key_size;
    gradient[n] *= p[n];
    content += gradient[n] * product[n];
    Vec scaled = gradient[n] * scale;
    for (int64_t c = 0; c < d; ++c) {
      Vec d_query = query[5 * d + c] + scaled * key[c];
      Vec d_key = key[4 * d + c] + scaled * query[c];
      if (P) d_query += gradient[n] * table.q[c];
      if (P) d_key += gradient[n] * table.k[c];
      if (P) sums[c] += gradient[n] * query[c];
      if (P) sums[d + c] += gradient[n] * key[d + c];
      query[5 * d + c] = d_query;
      key[4 * d + c] = d_key;
    }
  }
  return content;
}

// Queries by keys whose rows stay in the first-level cache together.
constexpr int64_t BLOCK = 16;

// The pairs of some queries, from `first_i` on, and keys, along the diagonals, where a table has
// one row. A key's row: k - mean, k, v, dk, dv; a query's: q, dvalue, dposition, dq, -log-sum-exp
// and -p.dp. Returns the sum of dlogit q.k.
template <int D, bool P>
Vec block_backward(const Sizes& sizes, int64_t first_i, int64_t first_j, float scale, Tables tables,
                   Vec* queries, Vec* keys, RangeSums sums, Vec* wide) {
  const int64_t d = channels_of<D>(sizes), key_size = 7 * d, query_size = 6 * d + 2;
  const int64_t last_i = first_i + BLOCK < sizes.length ? first_i + BLOCK : sizes.length;
  const int64_t last_j = first_j + BLOCK < sizes.length ? first_j + BLOCK : sizes.length;
  Vec content{};
  for (int64_t ahead = first_j - last_i + 1; ahead < last_j - first_i; ++ahead) {  // j - i
    const int64_t begin = first_i > first_j - ahead ? first_i : first_j - ahead;
    const int64_t end = last_i < last_j - ahead ? last_i : last_j - ahead;
    const int64_t offset = ahead + sizes.length - 1;
    const float *table_q = tables.q + offset * d, *table_k = tables.k + offset * d;
    const float* table_v = tables.v + offset * 2 * d;
    Vec narrow[D > 0 ? 4 * D : 1];
    Vec* local = D > 0 ? narrow : wide;
    const Vec *sum_q = local, *sum_k = sum_q + d, *sum_v = sum_k + d;
    for (int64_t c = 0; P && c < 4 * d; ++c) local[c] = Vec{};
    int64_t i = begin;
    for (; SIDE_BY_SIDE<D> == 2 && i + 1 < end; i += 2)
      content += pairs_backward<D, P, 2>(d, queries + i * query_size, keys + (i + ahead) * key_size,
                                         scale, {table_q, table_k, table_v}, local);
    for (; i < end; ++i)
      content += pairs_backward<D, P, 1>(d, queries + i * query_size, keys + (i + ahead) * key_size,
                                         scale, {table_q, table_k, table_v}, local);
    for (int64_t c = 0; P && c < d; ++c) {
      sums.q[offset * d + c] += sum_q[c];
      sums.k[offset * d + c] += sum_k[c];
    }
    for (int64_t c = 0; P && c < 2 * d; ++c) sums.v[offset * 2 * d + c] += sum_v[c];
  }
  return content;
}

inline int64_t attend_backward_scratch(const Sizes& sizes) {
  return sizes.length * (13 * sizes.channels + 2) + 5 * sizes.channels;
}

// Gradients with respect to the normalised q, k, v of a strip, as (length, 4d), from those of its
// value and position terms.
template <int D, bool P>
void attend_backward(const Sizes& sizes, const Vec* raw, Normalisation in, float scale, Tables tables,
                     const Vec* log_sum, const Vec* value, const Vec* position,
                     const Vec* d_value, const Vec* d_position, Vec* d_raw, RangeSums sums,
                     Vec* scratch) {
  const int64_t d = channels_of<D>(sizes), length = sizes.length;
  const int64_t key_size = 7 * d, query_size = 6 * d + 2;
  Vec *keys = scratch, *queries = keys + length * key_size;
  Vec* wide = queries + length * query_size;
  prepare_keys<D>(sizes, raw, in, keys, key_size, wide);
  for (int64_t j = 0; j < length; ++j) fill_zero(keys + j * key_size + 4 * d, 3 * d);
  for (int64_t i = 0; i < length; ++i) {
    Vec* query = queries + i * query_size;
    Vec shared{};
    for (int64_t c = 0; c < d; ++c) {
      query[c] = in.normalised(raw[i * 4 * d + c], c);
      query[5 * d + c] = Vec{};
    }
    for (int64_t c = 0; c < 2 * d; ++c) {
      query[d + c] = d_value[i * 2 * d + c];
      shared += query[d + c] * value[i * 2 * d + c];
      if (P) query[3 * d + c] = d_position[i * 2 * d + c];
      if (P) shared += query[3 * d + c] * position[i * 2 * d + c];
    }
    query[6 * d] = -log_sum[i];
    query[6 * d + 1] = -shared;
  }
  Vec content{};
  for (int64_t i = 0; i < length; i += BLOCK)
    for (int64_t j = 0; j < length; j += BLOCK)
      content += block_backward<D, P>(sizes, i, j, scale, tables, queries, keys, sums, wide);
  *sums.content += content;
  for (int64_t position_index = 0; position_index < length; ++position_index) {
    Vec* gradient = d_raw + position_index * 4 * d;
    for (int64_t c = 0; c < d; ++c) {
      gradient[c] = queries[position_index * query_size + 5 * d + c];
      gradient[d + c] = keys[position_index * key_size + 4 * d + c];
    }
    for (int64_t c = 0; c < 2 * d; ++c)
      gradient[2 * d + c] = keys[position_index * key_size + 5 * d + c];
  }
}

}  // namespace

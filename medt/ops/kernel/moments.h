// Means and variances of channels and, in closed form, of the similarity terms; and their gradients.
//
// A similarity term is the product x.y of two independent vectors with means mu, nu and covariances
// A, B: its variance is mu^T B mu + nu^T A nu + tr(A B), averaged over what they are drawn per, plus
// the variance of mu.nu between these. All parts are non-negative, so none cancels.
#pragma once
#include <cmath>

#include "tiles.h"

namespace {

struct Moment {
  double mean, squares;  // the mean, and the sum of squared deviations from it
};

// Moments of each channel of a strip (length, count), idle lanes left out.
inline void strip_moments(const Sizes& sizes, const Vec* strip, int64_t count, int64_t tile,
                          Moment* moments) {
  const Vec mask = sizes.mask(tile);
  const float elements = float(sizes.used_lanes(tile) * sizes.length);
  for (int64_t c = 0; c < count; ++c) {
    Vec sum{}, rest{}, squares{};
    for (int64_t l = 0; l < sizes.length; ++l) sum += strip[l * count + c];
    const float mean = sum_of_lanes(sum * mask) / elements;
    for (int64_t l = 0; l < sizes.length; ++l) {
      Vec centred = strip[l * count + c] - mean;
      rest += centred;
      squares += centred * centred;
    }
    // What rounding left: then the mean of a constant is that constant.
    const double correction = sum_of_lanes(rest * mask) / elements;
    moments[c] = {mean + correction, sum_of_lanes(squares * mask)};
  }
}

// Mean and biased variance of each of `count` channels of each head, from its strips' moments.
inline void combine_moments(const Sizes& sizes, const Moment* strips, int64_t count, float* mean,
                            float* variance) {
  for (int64_t channel = 0; channel < sizes.heads * count; ++channel) {
    const int64_t head = channel / count, c = channel % count;
    double elements = 0, total = 0, squares = 0;
    for (int64_t tile = 0; tile < sizes.tiles; ++tile) {
      const Moment& moment = strips[(head * sizes.tiles + tile) * count + c];
      const double added = double(sizes.used_lanes(tile) * sizes.length);
      const double step = moment.mean - total;
      squares += moment.squares + step * step * elements * added / (elements + added);
      total += step * added / (elements + added);
      elements += added;
    }
    mean[channel] = float(total);
    variance[channel] = float(squares / elements);
  }
}

// Mean (count) and covariance (count, count) of each position's vector; [head][position].
struct PositionMoments {
  float *mean, *covariance;
};

// A table's windows: position p meets the columns center + p - p' for all positions p'.
struct Windows {
  Buffer<double> mean, covariance;  // (length, d), (length, d, d)

  Windows(const Sizes& sizes, const float* table)
      : mean(sizes.length * sizes.channels),
        covariance(sizes.length * sizes.channels * sizes.channels) {
    const int64_t d = sizes.channels, length = sizes.length;
    for (int64_t p = 0; p < length; ++p) {
      const float* last = table + sizes.table_center + p;
      double *means = mean.get() + p * d, *products = covariance.get() + p * d * d;
      for (int64_t c = 0; c < d; ++c) {
        double sum = 0;
        for (int64_t x = 0; x < length; ++x) sum += last[c * sizes.table_columns - x];
        means[c] = sum / double(length);
      }
      for (int64_t a = 0; a < d; ++a)
        for (int64_t b = 0; b <= a; ++b) {
          double sum = 0;
          for (int64_t x = 0; x < length; ++x)
            sum += (last[a * sizes.table_columns - x] - means[a]) *
                   (last[b * sizes.table_columns - x] - means[b]);
          products[a * d + b] = products[b * d + a] = sum / double(length);
        }
    }
  }
};

// mu.nu, and mu^T B mu + nu^T A nu + tr(A B).
template <class X, class Y, class T>
inline void product_moments(int64_t d, const X* mu, const X* a, const Y* nu, const Y* b, T* dot,
                            T* spread) {
  *dot = *spread = T{};
  for (int64_t i = 0; i < d; ++i) {
    *dot += mu[i] * nu[i];
    for (int64_t j = 0; j < d; ++j)
      *spread += mu[i] * mu[j] * b[i * d + j] + nu[i] * nu[j] * a[i * d + j] +
                 a[i * d + j] * b[i * d + j];
  }
}

// Mean and covariance over the positions of every lane of d channels of a raw strip.
inline void lane_moments(const Sizes& sizes, const Vec* raw, Normalisation in, Vec* mean,
                         Vec* covariance) {
  const int64_t d = sizes.channels;
  const float share = 1.0f / float(sizes.length);
  for (int64_t c = 0; c < d; ++c) {
    Vec sum{};
    for (int64_t l = 0; l < sizes.length; ++l) sum += raw[l * 4 * d + c];
    mean[c] = sum * share;
  }
  for (int64_t a = 0; a < d; ++a)
    for (int64_t b = 0; b <= a; ++b) {
      Vec sum{};
      for (int64_t l = 0; l < sizes.length; ++l)
        sum += (raw[l * 4 * d + a] - mean[a]) * (raw[l * 4 * d + b] - mean[b]);
      covariance[a * d + b] = covariance[b * d + a] = sum * (share * in.factor[a] * in.factor[b]);
    }
  for (int64_t c = 0; c < d; ++c) mean[c] = in.normalised(mean[c], c);
}

inline int64_t lane_scratch(const Sizes& sizes) {
  return 2 * sizes.channels * (sizes.channels + 1);
}

// Mean and covariance of q and of k, over the positions of every lane.
struct LaneMoments {
  Vec *q_mean, *k_mean, *q_covariance, *k_covariance;

  LaneMoments(const Sizes& sizes, const Vec* raw, Normalisation in, Vec* scratch) {
    const int64_t d = sizes.channels;
    q_mean = scratch, k_mean = q_mean + d, q_covariance = k_mean + d;
    k_covariance = q_covariance + d * d;
    lane_moments(sizes, raw, in, q_mean, q_covariance);
    lane_moments(sizes, raw + d, in.from(d), k_mean, k_covariance);
  }
};

// Adds y and y y^T of d channels to the sums (length, d + d d) over lanes; y lacks the norm's bias.
inline void add_position_sums(const Sizes& sizes, const Vec* raw, Normalisation in, Vec mask,
                              Vec* sums, Vec* y) {
  const int64_t d = sizes.channels;
  for (int64_t l = 0; l < sizes.length; ++l, sums += d + d * d) {
    for (int64_t c = 0; c < d; ++c) {
      y[c] = (raw[l * 4 * d + c] - in.mean[c]) * in.factor[c] * mask;
      sums[c] += y[c];
    }
    for (int64_t a = 0; a < d; ++a)
      for (int64_t b = 0; b <= a; ++b) sums[d + a * d + b] += y[a] * y[b];
  }
}

// Means and covariances of one head from the sums of its ranges, each (length, d + d d).
inline void finish_position_moments(const Sizes& sizes, const double* sums, int64_t ranges,
                                    int64_t stride, const float* bias, PositionMoments out) {
  const int64_t d = sizes.channels, row = d + d * d;
  for (int64_t l = 0; l < sizes.length; ++l) {
    auto average = [&](int64_t x) {
      double total = 0;
      for (int64_t range = 0; range < ranges; ++range) total += sums[range * stride + l * row + x];
      return total / double(sizes.lanes);
    };
    for (int64_t a = 0; a < d; ++a) {
      out.mean[l * d + a] = float(average(a)) + bias[a];
      for (int64_t b = 0; b <= a; ++b) {
        float value = float(average(d + a * d + b) - average(a) * average(b));
        out.covariance[(l * d + a) * d + b] = out.covariance[(l * d + b) * d + a] = value;
      }
    }
  }
}

// Mean and variance of a position term of one head.
inline void position_term(const Sizes& sizes, PositionMoments x, const Windows& windows,
                          float* mean, float* variance) {
  const int64_t d = sizes.channels;
  double spreads = 0, dots = 0, squares = 0;
  for (int64_t l = 0; l < sizes.length; ++l) {
    double dot, spread;
    product_moments(d, x.mean + l * d, x.covariance + l * d * d, windows.mean.get() + l * d,
                    windows.covariance.get() + l * d * d, &dot, &spread);
    const double step = dot - dots;
    dots += step / double(l + 1);
    squares += step * (dot - dots);
    spreads += spread;
  }
  *mean = float(dots);
  *variance = float((squares + spreads) / double(sizes.length));
}

// The gradient with respect to a position's vectors is affine in them: alpha + beta x, (d), (d, d)
// a position; that of the table is added to `d_table`. `d_variance` belongs to one head's term.
inline void position_term_backward(const Sizes& sizes, PositionMoments x, const Windows& windows,
                                   const float* table, double mean, double d_variance,
                                   double* d_table, float* alpha, float* beta) {
  const int64_t d = sizes.channels;
  const double each = d_variance / double(sizes.length), lanes = double(sizes.lanes);
  Buffer<double> of_window(d + d * d);
  double *d_nu = of_window.get(), *d_b = d_nu + d;
  for (int64_t l = 0; l < sizes.length; ++l, alpha += d, beta += d * d) {
    const float *mu = x.mean + l * d, *a = x.covariance + l * d * d;
    const double *nu = windows.mean.get() + l * d, *b = windows.covariance.get() + l * d * d;
    double dot, spread;
    product_moments(d, mu, a, nu, b, &dot, &spread);
    for (int64_t i = 0; i < d; ++i) {
      double d_mu = (dot - mean) * nu[i];
      d_nu[i] = (dot - mean) * mu[i];
      double centre = 0;
      for (int64_t j = 0; j < d; ++j) {
        d_mu += b[i * d + j] * mu[j];
        d_nu[i] += a[i * d + j] * nu[j];
        d_b[i * d + j] = each * (double(mu[i]) * mu[j] + a[i * d + j]);
        const double d_a = each * (nu[i] * nu[j] + b[i * d + j]);
        beta[i * d + j] = float(2 * d_a / lanes);
        centre += 2 * d_a / lanes * mu[j];
      }
      alpha[i] = float(2 * each * d_mu / lanes - centre);
      d_nu[i] *= 2 * each;
    }
    const double share = 1 / double(sizes.length);
    for (int64_t i = 0; i < d; ++i)
      for (int64_t p = 0; p < sizes.length; ++p) {
        const int64_t column = sizes.table_center + l - p;
        double gradient = share * d_nu[i];
        for (int64_t j = 0; j < d; ++j)
          gradient += 2 * share * d_b[i * d + j] * (table[j * sizes.table_columns + column] - nu[j]);
        d_table[i * sizes.table_columns + column] += gradient;
      }
  }
}

// Adds alpha + beta x to the gradient (length, 4d) of x, d channels of a strip.
inline void add_affine(const Sizes& sizes, const Vec* raw, Normalisation in, const float* alpha,
                       const float* beta, Vec* d_raw, Vec* x) {
  const int64_t d = sizes.channels;
  for (int64_t l = 0; l < sizes.length; ++l, alpha += d, beta += d * d) {
    for (int64_t c = 0; c < d; ++c) x[c] = in.normalised(raw[l * 4 * d + c], c);
    for (int64_t i = 0; i < d; ++i) {
      Vec sum = broadcast(alpha[i]);
      for (int64_t j = 0; j < d; ++j) sum += x[j] * beta[i * d + j];
      d_raw[l * 4 * d + i] += sum;
    }
  }
}

// Adds the gradient of the variance of q.k to that of a strip (length, 4d), for one head.
inline void content_term_backward(const Sizes& sizes, const Vec* raw, Normalisation in,
                                  double mean, double d_variance, Vec* d_raw, Vec* scratch) {
  const int64_t d = sizes.channels;
  LaneMoments lanes(sizes, raw, in, scratch);
  Vec dot, spread;
  product_moments(d, lanes.q_mean, lanes.q_covariance, lanes.k_mean, lanes.k_covariance, &dot,
                  &spread);
  const Vec deviation = dot - float(mean);
  const float each = float(2 * d_variance / double(sizes.lanes) / double(sizes.length));
  for (int side = 0; side < 2; ++side) {
    const Vec *mu = side ? lanes.k_mean : lanes.q_mean, *nu = side ? lanes.q_mean : lanes.k_mean;
    const Vec* b = side ? lanes.q_covariance : lanes.k_covariance;
    for (int64_t i = 0; i < d; ++i) {
      const int64_t channel = side * d + i;
      Vec d_mu = deviation * nu[i];
      for (int64_t j = 0; j < d; ++j) d_mu += b[i * d + j] * mu[j];
      for (int64_t l = 0; l < sizes.length; ++l) d_raw[l * 4 * d + channel] += each * d_mu;
      for (int64_t j = 0; j < d; ++j) {
        const Vec d_a = each * (nu[i] * nu[j] + b[i * d + j]);
        for (int64_t l = 0; l < sizes.length; ++l) {
          const Vec x = in.normalised(raw[l * 4 * d + side * d + j], side * d + j);
          d_raw[l * 4 * d + channel] += d_a * (x - mu[j]);
        }
      }
    }
  }
}

}  // namespace

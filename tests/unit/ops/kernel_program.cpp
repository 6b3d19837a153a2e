// Calls the kernel on many small layers and checks what needs no reference: nothing is left unset,
// threads change no bit, differences of the output agree with the gradients, and inference with the
// batch's moments repeats the training. All memory is on the heap and exactly as large as layer.h
// says, so that AddressSanitizer sees an access beyond it (test_kernel_sanitizers.py).
#include "layer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <new>
#include <random>
#include <string>
#include <vector>

namespace {

using Numbers = std::vector<float>;

// What the output depends on, and what has a gradient.
enum Tensor {
  QKV,
  QKV_WEIGHT,
  QKV_BIAS,
  SIMILARITY_WEIGHT,
  RELATIVE,
  VALUE_WEIGHT,
  VALUE_BIAS,
  POSITION_WEIGHT,
  POSITION_BIAS,
  GATES,
  TENSORS
};
const char* const NAMES[TENSORS] = {
    "qkv",          "qkv_weight", "qkv_bias",        "similarity_weight", "relative",
    "value_weight", "value_bias", "position_weight", "position_bias",     "gates"};
using Values = std::array<Numbers, TENSORS>;

enum Positions { NONE, PLAIN, GATED };

// No number: what the kernel does not set shows.
Numbers unset(int64_t count) {
  return Numbers(size_t(count), std::numeric_limits<float>::quiet_NaN());
}

float* pointer(Numbers& numbers) { return numbers.empty() ? nullptr : numbers.data(); }
const float* pointer(const Numbers& numbers) { return numbers.empty() ? nullptr : numbers.data(); }

// The distributions of the standard library differ between its makers; this one does not.
class Random {
 public:
  explicit Random(uint32_t seed) : bits_(seed) {}
  int64_t below(int64_t count) { return int64_t(bits_() % uint64_t(count)); }
  float between(float low, float high) {
    return low + (high - low) * float(bits_() >> 8) * (1.0f / (1 << 24));
  }
  Numbers around(float centre, float width, int64_t count) {
    Numbers numbers(static_cast<size_t>(count));
    for (float& x : numbers) x = between(centre - width, centre + width);
    return numbers;
  }

 private:
  std::mt19937 bits_;
};

// Memory for what the forward pass keeps, aligned as layer.h demands.
class Kept {
 public:
  explicit Kept(const MedtShape& shape) : count_(size_t(medt_saved_size(&shape))) {
    data_ = static_cast<float*>(::operator new(bytes(), std::align_val_t(64)));
    std::fill(data_, data_ + count_, std::numeric_limits<float>::quiet_NaN());
  }
  ~Kept() { ::operator delete(data_, std::align_val_t(64)); }
  Kept(const Kept&) = delete;
  Kept& operator=(const Kept&) = delete;
  float* get() const { return data_; }
  size_t bytes() const { return count_ * sizeof(float); }

 private:
  size_t count_;
  float* data_;
};

// A tensor (batch, channels, height, width), contiguous or channels-last; either of its two axes is
// the one attended.
struct Layout {
  bool channels_last, along_width;

  MedtStrides strides(const MedtShape& s, int64_t channels) const {
    const int64_t width = along_width ? s.length : s.others, plane = s.length * s.others;
    const int64_t column = channels_last ? channels : 1, row = width * column;
    return {plane * channels, channels_last ? 1 : plane, along_width ? column : row,
            along_width ? row : column};
  }
};

struct Layer {
  MedtShape shape;
  float epsilon;
  MedtStrides qkv, out, d_out, d_qkv;
  Values values;
  Numbers cotangent;
  std::string name;

  // Pairs of a query and a key, by channels: what a pass takes time for.
  int64_t work() const { return pixels() * shape.length * shape.heads * shape.channels; }
  int64_t terms() const { return shape.table_columns > 0 ? 3 : 1; }
  int64_t pixels() const { return shape.batch * shape.length * shape.others; }
  int64_t out_channels() const { return 2 * shape.heads * shape.channels; }

  MedtParameters parameters(const Values& at) const {
    MedtParameters p{pointer(at[QKV_WEIGHT]),
                     pointer(at[QKV_BIAS]),
                     pointer(at[SIMILARITY_WEIGHT]),
                     pointer(at[RELATIVE]),
                     pointer(at[VALUE_WEIGHT]),
                     pointer(at[VALUE_BIAS]),
                     pointer(at[POSITION_WEIGHT]),
                     pointer(at[POSITION_BIAS]),
                     {},
                     epsilon};
    std::copy(at[GATES].begin(), at[GATES].end(), p.gates);
    return p;
  }
};

// The moments, each in memory of its own.
struct Statistics {
  std::array<Numbers, 8> parts;

  explicit Statistics(const Layer& layer) {
    const int64_t out = layer.out_channels();
    const int64_t sizes[] = {2 * out, layer.terms() * layer.shape.heads, out,
                             layer.terms() > 1 ? out : 0};
    for (size_t part = 0; part < 8; ++part) parts[part] = unset(sizes[part / 2]);
  }
  MedtStatistics pointers() {
    auto at = [&](size_t part) { return pointer(parts[part]); };
    return {at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7)};
  }
};

struct Results {
  Numbers out;
  Statistics statistics;
  Values gradients;
  bool kept_alone;  // the backward pass did not write to what it is given as constant
};

Layer make_layer(Random& random, int64_t length, int64_t others, int64_t channels,
                 Positions positions) {
  Layer layer;
  int64_t batch = 1 + random.below(3), heads = 1 + random.below(3);
  // The program has to end in seconds, and the longest axes have lanes enough.
  if (batch * heads * others * length * length * channels > 100000) batch = heads = 1;
  const int64_t spare = random.below(4);
  const int64_t columns = positions == NONE ? 0 : 2 * (length + spare) - 1;
  layer.shape = {batch, heads, channels, length, others, columns, columns / 2};
  // With the large one the gates, which the norms divide out, have gradients to speak of.
  layer.epsilon = random.below(2) ? 1e-5f : 0.1f;
  const int64_t out = layer.out_channels(), in = 2 * out;
  const bool along_width = random.below(2);
  auto strides = [&](int64_t count) {
    return Layout{random.below(2) == 1, along_width}.strides(layer.shape, count);
  };
  layer.qkv = strides(in), layer.out = strides(out);
  layer.d_out = strides(out), layer.d_qkv = strides(in);
  const int64_t position_channels = positions == NONE ? 0 : out;
  Values& at = layer.values;
  at[QKV] = random.around(0.2f, 1.7f, in * layer.pixels());
  at[QKV_WEIGHT] = random.around(1, 0.5f, in);
  at[QKV_BIAS] = random.around(0, 0.5f, in);
  at[SIMILARITY_WEIGHT] = random.around(1, 0.5f, layer.terms() * heads);
  at[RELATIVE] = random.around(0, 0.7f, 4 * channels * columns);
  at[VALUE_WEIGHT] = random.around(1, 0.5f, out);
  at[VALUE_BIAS] = random.around(0, 0.5f, out);
  at[POSITION_WEIGHT] = random.around(1, 0.5f, position_channels);
  at[POSITION_BIAS] = random.around(0, 0.5f, position_channels);
  at[GATES] = positions == GATED ? Numbers{0.4f, -0.7f, 1.3f, 0.2f} : Numbers(4, 1.0f);
  layer.cotangent = random.around(0, 1, out * layer.pixels());
  const char* const kinds[] = {"no positions", "plain", "gated"};
  char text[200];
  std::snprintf(text, sizeof text,
                "batch %d, heads %d, channels %d, length %d, others %d, %s, columns %d, epsilon %g",
                int(batch), int(heads), int(channels), int(length), int(others), kinds[positions],
                int(columns), double(layer.epsilon));
  layer.name = text;
  return layer;
}

const float STEP = 1.0f / 64;

int failures = 0;

void expect(bool holds, const Layer& layer, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED %s: %s\n", layer.name.c_str(), what.c_str());
}

Numbers forward(const Layer& layer, const Values& at, Statistics& statistics, const Kept& kept,
                int threads) {
  const MedtParameters parameters = layer.parameters(at);
  const MedtStatistics pointers = statistics.pointers();
  Numbers out = unset(layer.out_channels() * layer.pixels());
  const int error = medt_forward(&layer.shape, &parameters, at[QKV].data(), &layer.qkv, out.data(),
                                 &layer.out, &pointers, kept.get(), threads);
  expect(!error, layer, "the forward pass lacks memory");
  return out;
}

Results run(const Layer& layer, int threads) {
  Kept kept(layer.shape);
  Results results{{}, Statistics(layer), {}, true};
  results.out = forward(layer, layer.values, results.statistics, kept, threads);
  for (size_t x = 0; x < TENSORS; ++x)
    results.gradients[x] = unset(int64_t(layer.values[x].size()));
  auto at = [&](Tensor x) { return pointer(results.gradients[x]); };
  const MedtGradients gradients{at(QKV_WEIGHT),      at(QKV_BIAS),      at(SIMILARITY_WEIGHT),
                                at(RELATIVE),        at(VALUE_WEIGHT),  at(VALUE_BIAS),
                                at(POSITION_WEIGHT), at(POSITION_BIAS), at(GATES)};
  const MedtParameters parameters = layer.parameters(layer.values);
  const MedtStatistics pointers = results.statistics.pointers();
  const Numbers before(kept.get(), kept.get() + kept.bytes() / sizeof(float));
  const int error =
      medt_backward(&layer.shape, &parameters, &pointers, kept.get(), layer.cotangent.data(),
                    &layer.d_out, at(QKV), &layer.d_qkv, &gradients, threads);
  expect(!error, layer, "the backward pass lacks memory");
  results.kept_alone = std::memcmp(before.data(), kept.get(), kept.bytes()) == 0;
  return results;
}

bool finite(const Numbers& numbers) {
  return std::all_of(numbers.begin(), numbers.end(), [](float x) { return std::isfinite(x); });
}

bool same_bits(const Numbers& a, const Numbers& b) {
  return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

void check_results(const Layer& layer, const Results& one, const Results& three) {
  expect(finite(one.out), layer, "the output is not finite");
  expect(same_bits(one.out, three.out), layer, "the output depends on the threads");
  for (size_t part = 0; part < one.statistics.parts.size(); ++part) {
    const Numbers& moments = one.statistics.parts[part];
    const std::string name = "statistics " + std::to_string(part);
    expect(finite(moments), layer, name + " are not finite");
    expect(same_bits(moments, three.statistics.parts[part]), layer,
           name + " depend on the threads");
  }
  for (size_t x = 0; x < TENSORS; ++x) {
    const std::string name = std::string("the gradient of ") + NAMES[x];
    expect(finite(one.gradients[x]), layer, name + " is not finite");
    expect(same_bits(one.gradients[x], three.gradients[x]), layer,
           name + " depends on the threads");
  }
  expect(one.kept_alone && three.kept_alone, layer, "the backward pass wrote to its constants");
}

void check_inference(const Layer& layer, Results& trained, int threads) {
  const MedtParameters parameters = layer.parameters(layer.values);
  const MedtStatistics statistics = trained.statistics.pointers();
  Numbers out = unset(layer.out_channels() * layer.pixels());
  const int error = medt_inference(&layer.shape, &parameters, &statistics, layer.values[QKV].data(),
                                   &layer.qkv, out.data(), &layer.out, threads);
  expect(!error, layer, "inference lacks memory");
  float largest = 1, difference = 0;
  for (size_t x = 0; x < out.size(); ++x) {
    largest = std::max(largest, std::abs(trained.out[x]));
    difference = std::max(difference, std::abs(out[x] - trained.out[x]));
  }
  expect(finite(out), layer, "the output of inference is not finite");
  expect(difference <= 1e-4f * largest, layer, "inference differs from training");
}

// The sum of products of two tensors, each with strides of its own.
double dot(const MedtShape& s, int64_t channels, const Numbers& a, const MedtStrides& of_a,
           const Numbers& b, const MedtStrides& of_b) {
  double sum = 0;
  for (int64_t n = 0; n < s.batch; ++n)
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t l = 0; l < s.length; ++l)
        for (int64_t o = 0; o < s.others; ++o) {
          auto index = [&](const MedtStrides& by) {
            return size_t(n * by.batch + c * by.channel + l * by.length + o * by.other);
          };
          sum += double(a[index(of_a)]) * b[index(of_b)];
        }
  return sum;
}

double dot(const Numbers& a, const Numbers& b) {
  double sum = 0;
  for (size_t x = 0; x < a.size(); ++x) sum += double(a[x]) * b[x];
  return sum;
}

// Moves each tensor in a direction of its own, so that none hides behind a larger one.
void check_gradients(const Layer& layer, const Results& results, Random& random) {
  const int64_t out_channels = layer.out_channels();
  Kept kept(layer.shape);
  Statistics statistics(layer);
  for (size_t x = 0; x < TENSORS; ++x) {
    const Numbers &centre = layer.values[x], &gradient = results.gradients[x];
    if (centre.empty()) continue;
    const Numbers direction = random.around(0, 1, int64_t(centre.size()));
    auto objective = [&](float step) {
      Values moved = layer.values;
      for (size_t i = 0; i < centre.size(); ++i) moved[x][i] += step * direction[i];
      const Numbers out = forward(layer, moved, statistics, kept, 1);
      return dot(layer.shape, out_channels, out, layer.out, layer.cotangent, layer.d_out);
    };
    // Two central differences whose errors of second order cancel: the step may be so long that
    // float32's rounding does not count.
    const double numeric =
        (8 * (objective(STEP) - objective(-STEP)) - (objective(2 * STEP) - objective(-2 * STEP))) /
        (12 * double(STEP));
    const double exact =
        x == QKV ? dot(layer.shape, 2 * out_channels, gradient, layer.d_qkv, direction, layer.qkv)
                 : dot(gradient, direction);
    const double scale = std::sqrt(dot(gradient, gradient));
    const double noise = std::sqrt(dot(layer.cotangent, layer.cotangent));
    char text[200];
    std::snprintf(text, sizeof text, "along %s the output changes by %g, by the gradient %g",
                  NAMES[x], numeric, exact);
    // Beyond rounding by far; the second part counts where gradients cancel, as those of the gates.
    expect(std::abs(numeric - exact) <= 1e-3 * scale + 3e-4 * noise, layer, text);
  }
}

}  // namespace

int main() {
  const int64_t sizes[] = {1, 2, 3, 7, 16, 17, 33}, channels[] = {1, 2, 3, 4, 5, 8, 16};
  Random random(20);
  int layers = 0, differentiated = 0;
  // Every pair of two of length, others and channels occurs, and with every kind of positions.
  for (int positions = NONE; positions <= GATED; ++positions)
    for (int length = 0; length < 7; ++length)
      for (int others = 0; others < 7; ++others) {
        const Layer layer =
            make_layer(random, sizes[length], sizes[others],
                       channels[(length + others + positions) % 7], Positions(positions));
        ++layers;
        Results results = run(layer, 1);
        check_results(layer, results, run(layer, 3));
        check_inference(layer, results, 1);
        check_inference(layer, results, 3);
        // Norms of few values multiply rounding errors; the largest layers would take too long.
        if (layer.shape.length < 3 || layer.pixels() < 40 || layer.work() > 40000) continue;
        ++differentiated;
        check_gradients(layer, results, random);
      }
  std::printf("%s: %d layers, %d of them differentiated, %d failures\n", medt_instruction_set(),
              layers, differentiated, failures);
  return failures ? 1 : 0;
}

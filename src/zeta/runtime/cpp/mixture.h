// The rows of a mixture of softmaxes, one chunk of tokens at a time.
//
// For mixture k of a token of target y, with z = logits + bias, either the statistics
//   high_k = max_v z_kv,  total_k = Σ_v e^(z_kv - high_k),  and z_ky,
// or, given these and a scale per row, the gradient in place of the logits:
//   scale_k · (e^(z_kv - high_k) / total_k - [v = y])
// A row is summed by one thread in one order.

using formula::Storage;
using formula::V;
using Number = Scalar<V>;
constexpr int width = lanes<V>;
constexpr Number largest = std::numeric_limits<Number>::max();

typedef int (*ParallelFor)(int64_t, int64_t, int64_t, void (*)(int64_t, int64_t, void*), void*);
struct Arguments {
    Storage* logits;
    const Number* bias;                   // one value per class, or null
    const int64_t* target;                // per token; negative: none of these classes
    Number *high, *total, *target_logit;  // (tokens, mixtures), as is the scale
    const Number* scale;                  // null: the statistics are wanted
    int64_t tokens, mixtures, classes, token_stride, mixture_stride, bias_stride;
    ParallelFor parallel_for;  // null: stay in this thread
};

constexpr int64_t block = 1024;   // classes whose maximum is taken before their exponentials
constexpr int64_t grain = 16384;  // logits that a thread has at least

INLINE V each(const Storage* p, int64_t count) { return count >= width ? load(p) : load_some(p, count); }
INLINE V each_of(const Number* p, int64_t count) {
    if (count >= width) return load(p);
    V v;
    for (int i = 0; i < width; i++) v[i] = p[i < count ? i : 0];
    return v;
}
INLINE void put(Storage* p, V v, int64_t count) { count >= width ? store(p, v) : store_some(p, v, count); }
INLINE Number highest(V v) {
    Number m = v[0];
    for (int i = 1; i < width; i++) m = v[i] > m ? v[i] : m;
    return m;
}
INLINE double sum_of(V v, int64_t count) {
    double sum = 0;
    for (int i = 0; i < width && i < count; i++) sum += v[i];
    return sum;
}

struct Row {
    Storage* logits;
    const Number* bias;
    int64_t classes;

    inline __attribute__((always_inline)) V at(int64_t i) const {
        const V z = each(logits + i, classes - i);
        return bias ? z + each_of(bias + i, classes - i) : z;
    }
    Number one(int64_t i) const { return load_some(logits + i, 1)[0] + (bias ? bias[i] : 0); }
};

static void statistics(const Row& row, Number& high, Number& total) {
    double sum = 0;
    high = -largest;
    const int64_t n = row.classes, whole = n / width * width;
    for (int64_t start = 0; start < n; start += block) {
        const int64_t stop = start + block < n ? start + block : n;
        const int64_t last = stop < whole ? stop : whole;
        V m = splat<V>(-largest), sums = {};
        for (int64_t i = start; i < stop; i += width) m = at_least(row.at(i), m);
        const Number block_high = highest(m) > high ? highest(m) : high;
        for (int64_t i = start; i < last; i += width) sums += exp(row.at(i) - block_high);
        sum = sum * std::exp(high - block_high) + sum_of(sums, width);
        if (last < stop) sum += sum_of(exp(row.at(last) - block_high), stop - last);
        high = block_high;
    }
    total = sum;
}

static void gradient(const Row& row, Number high, Number total, Number scale, int64_t target) {
    const int64_t n = row.classes;
    if (scale == 0) {  // whatever the logits are
        for (int64_t i = 0; i < n; i += width) put(row.logits + i, V{}, n - i);
        return;
    }
    const double p = target < 0 ? 0 : std::exp((double)row.one(target) - high) / total;
    const Number factor = scale / total;
    for (int64_t i = 0; i < n; i += width) put(row.logits + i, exp(row.at(i) - high) * factor, n - i);
    if (target >= 0) store_some(row.logits + target, splat<V>(scale * (p - 1)), 1);
}

static void tokens(int64_t begin, int64_t end, void* context) {
    const Arguments& a = *(const Arguments*)context;
    for (int64_t i = begin * a.mixtures; i < end * a.mixtures; i++) {
        const int64_t token = i / a.mixtures, k = i % a.mixtures, target = a.target[token];
        const Number* bias = a.bias ? a.bias + k * a.bias_stride : nullptr;
        const Row row{a.logits + token * a.token_stride + k * a.mixture_stride, bias, a.classes};
        if (a.scale) {
            gradient(row, a.high[i], a.total[i], a.scale[i], target);
        } else {
            statistics(row, a.high[i], a.total[i]);
            a.target_logit[i] = target < 0 ? 0 : row.one(target);
        }
    }
}

extern "C" int zeta_kernel(Arguments* arguments) {
    const Arguments& a = *arguments;
    const int64_t per_thread = grain / (a.mixtures * a.classes) + 1;
    if (a.tokens <= per_thread || !a.parallel_for) tokens(0, a.tokens, arguments);
    else a.parallel_for(0, a.tokens, per_thread, tokens, arguments);
    return 0;
}

// The rows of softmax heads, one chunk of tokens at a time; a token has one row for each mixture.
//
// The generated code defines, in namespace `formula`: Storage, V, parameters (see loops.h), and of
// the formula φ between logits and softmax
//   value(x, p)          its value
//   slope(x, p, terms)   its derivative by x; by parameters, all but what `finish` multiplies by
//   finish(p, 0, totals)
//
// With f = φ(logits + bias) and log p_v = log Σ_k prior_k·e^(f_kv)/Σ_u e^(f_ku), for each token either
//   statistics     high_k = max_v f_kv,  total_k = Σ_v e^(f_kv - high_k),  and f of the targets;
//   distribution   Σ_v mass_v·log p_v,  Σ_v mass_v·r_kv,  the entropy, the most probable class,
//                  where r_kv is the share that mixture k has in p_v;
//   gradient       φ'·(a_k·p_kv - Σ_j b_kj·[v = y_j] + c·p_kv·(log p_kv + entropy) - d·mass_v·r_kv)
//                  in place of the logits, and the sums that are gradients by φ's parameters.
// A row is summed by one thread in one order.

using formula::Storage;
using formula::V;
using Number = Scalar<V>;
constexpr int width = lanes<V>, parameters = formula::parameters;
constexpr Number largest = std::numeric_limits<Number>::max();

typedef int (*ParallelFor)(int64_t, int64_t, int64_t, void (*)(int64_t, int64_t, void*), void*);
enum Task : int64_t { STATISTICS, DISTRIBUTION, GRADIENT };
// N tokens, K mixtures, V classes, T targets; pointers may be null where that is said.
struct Arguments {
    Storage* logits;
    const Number* bias;     // (V,) or (K, V), or null
    const int64_t* target;  // (N, T); negative: none of these classes
    const Number* parameters;
    Number *high, *total, *value;                               // (N, K), (N, K), (N, K, T)
    const Number *shift, *mass;                                 // (N, K): log prior - log total; (V,) or null
    Number *mass_log_prob, *response, *entropy, *best;          // (N,), (N, K), (N,), (N,)
    int64_t* prediction;                                        // (N,)
    const Number *by_prob, *by_target, *by_entropy, *by_class;  // a (N, K), b (N, K, T), c and d (N,) or null
    double* totals;                                             // (N, K, parameters) or null
    int64_t tokens, mixtures, classes, targets, token_stride, mixture_stride, bias_stride;
    ParallelFor parallel_for;  // null: stay in this thread
    Task task;
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
// Lanes beyond the last class count for nothing.
INLINE V only(V v, int64_t count) { return count >= width || first<V>(count) ? v : V{}; }
INLINE Number highest(V v) {
    Number m = v[0];
    for (int i = 1; i < width; i++) m = v[i] > m ? v[i] : m;
    return m;
}
INLINE double sum_of(V v) {
    double sum = 0;
    for (int i = 0; i < width; i++) sum += v[i];
    return sum;
}
INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

struct Row {
    Storage* logits;
    const Number* bias;
    int64_t classes;

    inline __attribute__((always_inline)) V at(int64_t i) const {
        const V z = each(logits + i, classes - i);
        return bias ? z + each_of(bias + i, classes - i) : z;
    }
    V one(int64_t i) const { return load_some(logits + i, 1) + (bias ? bias[i] : 0); }
};

struct Token {
    const Arguments& a;
    int64_t n;  // which one
    const V* p;

    Row row(int64_t k) const {
        Storage* logits = a.logits + n * a.token_stride + k * a.mixture_stride;
        return {logits, a.bias ? a.bias + k * a.bias_stride : nullptr, a.classes};
    }
    const int64_t* targets() const { return a.target + n * a.targets; }
    int64_t at(int64_t k) const { return n * a.mixtures + k; }
};

static void statistics(const Token& token, int64_t k) {
    const Arguments& a = token.a;
    const Row row = token.row(k);
    Number values[block], high = -largest;
    double sum = 0;
    for (int64_t start = 0; start < a.classes; start += block) {
        const int64_t count = least(block, a.classes - start);
        V m = splat<V>(-largest), sums = {};
        for (int64_t i = 0; i < count; i += width) {
            const V f = formula::value(row.at(start + i), token.p);
            store(values + i, f);
            m = at_least(f, m);
        }
        const Number block_high = highest(m) > high ? highest(m) : high;
        for (int64_t i = 0; i < count; i += width)
            sums += only(exp(load(values + i) - block_high), count - i);
        sum = sum * libm::exp(high - block_high) + sum_of(sums);
        high = block_high;
    }
    a.high[token.at(k)] = high;
    a.total[token.at(k)] = sum;
    for (int64_t j = 0; j < a.targets; j++) {
        const int64_t y = token.targets()[j];
        a.value[token.at(k) * a.targets + j] = y < 0 ? 0 : formula::value(row.one(y), token.p)[0];
    }
}

// The logarithms of the classes' probabilities, with `shares` the mixtures' shares in them, and `key`
// what the most probable class has the most of: of one mixture φ, which no rounding has made equal.
INLINE V log_prob(const Token& token, int64_t i, V* shares, V& key) {
    const Arguments& a = token.a;
    const auto value = [&](int64_t k) __attribute__((always_inline)) {
        return formula::value(token.row(k).at(i), token.p);
    };
    const auto joint = [&](int64_t k, V f) __attribute__((always_inline)) {
        return (f - a.high[token.at(k)]) + a.shift[token.at(k)];
    };
    if (a.mixtures == 1) {
        shares[0] = splat<V>(1);
        return joint(0, key = value(0));
    }
    V m = splat<V>(-largest), sum = {};
    for (int64_t k = 0; k < a.mixtures; k++) m = at_least(shares[k] = joint(k, value(k)), m);
    for (int64_t k = 0; k < a.mixtures; k++) sum += shares[k] = exp(shares[k] - m);
    for (int64_t k = 0; k < a.mixtures; k++) shares[k] /= sum;
    return key = m + log(sum);
}

static void distribution(const Token& token, V* shares) {
    const Arguments& a = token.a;
    V keys[block / width];
    V* const responses = shares + a.mixtures;  // sums of a block
    double mass_log_prob = 0, entropy = 0;
    Number best = -std::numeric_limits<Number>::infinity();
    int64_t prediction = 0;
    for (int64_t k = 0; k < a.mixtures; k++) a.response[token.at(k)] = 0;
    for (int64_t start = 0; start < a.classes; start += block) {
        const int64_t stop = start + least(block, a.classes - start);
        V m = splat<V>(best), masses = {}, entropies = {};
        for (int64_t k = 0; k < a.mixtures; k++) responses[k] = V{};
        for (int64_t i = start; i < stop; i += width) {
            V key;
            const V log_p = log_prob(token, i, shares, key), p = exp(log_p);
            keys[(i - start) / width] = key;
            m = at_least(key, m);
            entropies -= only(p == 0 ? V{} : p * log_p, stop - i);
            if (!a.mass) continue;
            const V mass = only(each_of(a.mass + i, stop - i), stop - i);
            // A class without mass may be impossible, and 0 · inf is NaN.
            masses += mass == 0 ? V{} : mass * log_p;
            for (int64_t k = 0; k < a.mixtures; k++) responses[k] += mass == 0 ? V{} : mass * shares[k];
        }
        entropy += sum_of(entropies);
        mass_log_prob += sum_of(masses);
        for (int64_t k = 0; k < a.mixtures; k++) a.response[token.at(k)] += sum_of(responses[k]);
        const Number high = highest(m);
        if (!(high > best)) continue;
        best = high;
        for (prediction = start; keys[(prediction - start) / width][(prediction - start) % width] != best;)
            prediction++;
    }
    a.mass_log_prob[token.n] = mass_log_prob;
    a.entropy[token.n] = entropy;
    a.best[token.n] = best;
    a.prediction[token.n] = prediction;
}

// Of the classes [start, stop) of a row; `shares` are as many vectors for each mixture, or null.
template <bool learns>
INLINE void row_gradient(
    const Token& token, int64_t k, int64_t start, int64_t stop, const V* shares, double* totals
) {
    const Arguments& a = token.a;
    const Row row = token.row(k);
    const int64_t at = token.at(k);
    const Number high = a.high[at], inverse = 1 / a.total[at], scale = a.by_prob[at] / a.total[at];
    const Number by_entropy = a.by_entropy ? a.by_entropy[token.n] : 0;
    const Number by_class = a.by_class ? a.by_class[token.n] : 0;
    Number of_targets[block] = {};
    for (int64_t j = 0; j < a.targets; j++) {
        const int64_t y = token.targets()[j];
        if (y >= start && y < stop) of_targets[y - start] += a.by_target[at * a.targets + j];
    }
    V terms[parameters + 1], sums[parameters + 1] = {};
    for (int64_t i = start; i < stop; i += width) {
        const V z = row.at(i), f = formula::value(z, token.p), e = exp(f - high);
        V g = e * scale;
        if (by_entropy != 0) {
            const V p = e * inverse, log_p = (f - high) + a.shift[at];
            g += p == 0 ? V{} : by_entropy * p * (log_p + a.entropy[token.n]);
        }
        if (by_class != 0) {
            const V mass = by_class * each_of(a.mass + i, stop - i);
            g -= mass == 0 ? V{} : shares ? mass * shares[(i - start) / width] : mass;
        }
        g -= load(of_targets + (i - start));
        const V slope = formula::slope(z, token.p, terms);
        // An impossible class, or a certain one, may have an infinite slope.
        put(row.logits + i, g == 0 ? g : g * slope, stop - i);
        if constexpr (learns)
            for (int t = 0; t < parameters; t++) sums[t] += only(g == 0 ? g : g * terms[t], stop - i);
    }
    if constexpr (learns)
        for (int t = 0; t < parameters; t++) totals[t] += sum_of(sums[t]);
}

// Whether its gradient is 0, whatever the logits are.
static bool is_silent(const Token& token) {
    const Arguments& a = token.a;
    bool silent = !(a.by_entropy && a.by_entropy[token.n]) && !(a.by_class && a.by_class[token.n]);
    for (int64_t k = 0; k < a.mixtures; k++) {
        silent = silent && a.by_prob[token.at(k)] == 0;
        for (int64_t j = 0; j < a.targets; j++) silent = silent && a.by_target[token.at(k) * a.targets + j] == 0;
    }
    return silent;
}

// `shares` are room for `step` vectors of each mixture, and for one more.
template <bool learns> static void gradient(const Token& token, V* shares, int64_t step) {
    const Arguments& a = token.a;
    const bool joint = a.by_class && a.mixtures > 1, silent = is_silent(token);
    double none[parameters + 1] = {};
    for (int64_t k = 0; k < a.mixtures && learns; k++)
        for (int t = 0; t < parameters; t++) a.totals[token.at(k) * parameters + t] = 0;
    for (int64_t start = 0; start < a.classes; start += step * width) {
        const int64_t stop = start + least(step * width, a.classes - start);
        V* const one = shares + a.mixtures * step;
        V key;
        for (int64_t i = start; i < stop && joint && !silent; i += width) {
            log_prob(token, i, one, key);
            for (int64_t k = 0; k < a.mixtures; k++) shares[k * step + (i - start) / width] = one[k];
        }
        for (int64_t k = 0; k < a.mixtures; k++) {
            if (silent) {
                for (int64_t i = start; i < stop; i += width) put(token.row(k).logits + i, V{}, stop - i);
            } else {
                double* const totals = learns ? a.totals + token.at(k) * parameters : none;
                row_gradient<learns>(token, k, start, stop, joint ? shares + k * step : nullptr, totals);
            }
        }
    }
    const Number* pointers[parameters + 1];
    for (int t = 0; t < parameters; t++) pointers[t] = a.parameters + t;
    for (int64_t k = 0; k < a.mixtures && learns; k++)
        formula::finish(pointers, 0, a.totals + token.at(k) * parameters);
}

static void tokens(int64_t begin, int64_t end, void* context) {
    const Arguments& a = *(const Arguments*)context;
    V p[parameters + 1];
    for (int t = 0; t < parameters; t++) p[t] = splat<V>(a.parameters[t]);
    const int64_t whole = block / width, part = whole / a.mixtures;
    const int64_t step = a.by_class && a.mixtures > 1 ? (part ? part : 1) : whole;
    V* const shares = (V*)__builtin_alloca_with_align(
        (step + 1) * a.mixtures * sizeof(V) + a.mixtures * sizeof(V), 8 * sizeof(V));
    for (int64_t n = begin; n < end; n++) {
        const Token token{a, n, p};
        if (a.task == DISTRIBUTION) distribution(token, shares);
        else if (a.task == GRADIENT) a.totals ? gradient<true>(token, shares, step) : gradient<false>(token, shares, step);
        else for (int64_t k = 0; k < a.mixtures; k++) statistics(token, k);
    }
}

extern "C" int zeta_kernel(Arguments* arguments) {
    const Arguments& a = *arguments;
    const int64_t per_thread = grain / (a.mixtures * a.classes) + 1;
    if (a.tokens <= per_thread || !a.parallel_for) tokens(0, a.tokens, arguments);
    else a.parallel_for(0, a.tokens, per_thread, tokens, arguments);
    return 0;
}

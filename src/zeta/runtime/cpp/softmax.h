// Softmax of a generated formula, or its logarithm, forward and backward, each one pass over memory.
//
// The generated code defines, in namespace `formula`: Storage, V, parameters (see loops.h),
//   logs                 whether the logarithm is wanted
//   value(x, p)          the pre-activation
//   slope(x, p, terms)   its derivative by x; by parameters, all but what `finish` multiplies by
//   finish(p, 0, totals)
//
// x is (outer, classes, inner); the softmax runs over the classes. A strip is what is computed at
// once: all classes of one row where inner is 1, else all classes of some neighbouring columns.
// Its values stay in a buffer of the arithmetic's type, so that half types are rounded once.
// Every distribution is summed by one thread in one order: the same bits for any thread count.

using formula::logs;
using formula::Storage;
using formula::V;
using Number = Scalar<V>;
constexpr int width = lanes<V>;

typedef int (*ParallelFor)(int64_t, int64_t, int64_t, void (*)(int64_t, int64_t, void*), void*);
struct Arguments {
    const Storage* x;
    const Storage* upstream;  // null: forward
    Storage* y;               // probabilities, or the gradient by x
    Number* kept;             // from forward for backward: y where `keeps_y`, else (2, outer, inner),
                              // the maximum of each distribution, and its sum of e^(value - maximum)
    double* gradients;        // by the parameters; null: not wanted
    int64_t outer, classes, inner;
    ParallelFor parallel_for;  // null: stay in this thread
    const Number* parameters[formula::parameters + 1];
};
struct Work {
    Arguments a;
    int64_t strips;  // per outer index
    int out_of_memory;
    double* totals;  // what each row or strip adds to the gradients by the parameters, or null
};

constexpr int64_t column_strip = 4 * width;
constexpr int64_t row_block = 1024;
constexpr int64_t grain = 16384;  // elements that a thread has at least
constexpr bool keeps_y = sizeof(Storage) == sizeof(Number);  // a half type's y has lost digits
constexpr Number largest = std::numeric_limits<Number>::max();

template <class T> INLINE V each(const T* p, int count) {
    return count == width ? load(p) : load_some(p, count);
}
INLINE void put(Storage* p, V v, int count) { count == width ? store(p, v) : store_some(p, v, count); }
// Lanes beyond the row's end count for nothing.
INLINE V only(V v, int count) { return first<V>(count) ? v : V{}; }
// step(i, count) at every vector of [begin, end); only the last may have less than `width` elements.
template <class Step> INLINE void vectors(int64_t begin, int64_t end, Step step) {
    int64_t i = begin;
    for (; i + width <= end; i += width) step(i, width);
    if (i < end) step(i, end - i);
}
#define STEP(...) [&](__VA_ARGS__) __attribute__((always_inline))

// A formula may overflow, and inf - inf would be NaN.
INLINE V bounded_value(V x, const V* p) { return finite(formula::value(x, p)); }

// All lanes joined by halves: four steps, not fifteen that wait for each other.
template <int n> struct Lanes { typedef Number type __attribute__((vector_size(n * sizeof(Number)))); };
template <int n, class Join> INLINE Number joined(typename Lanes<n>::type v, Join join) {
    if constexpr (n == 1) {
        return v[0];
    } else {
        typename Lanes<n / 2>::type half[2];
        std::memcpy(half, &v, sizeof v);
        return joined<n / 2>(join(half[0], half[1]), join);
    }
}
INLINE Number highest(V v) {
    return joined<width>(v, [](auto a, auto b) { return a > b ? a : b; });
}
INLINE Number total(V v) {
    return joined<width>(v, [](auto a, auto b) { return a + b; });
}

// ---- One row ----------------------------------------------------------------------------------

// Block by block, so that a value is still in the first cache when its exponential is taken; each
// block's exponentials are of its own maximum, and brought to the row's when they are written.
INLINE void row_forward(const Arguments& a, int64_t row, const V* p, Number* buffer) {
    const int64_t n = a.classes;
    const Storage* x = a.x + row * n;
    Storage* y = a.y + row * n;
    Number* const highs = buffer + (n + width - 1) / width * width;
    Number* const totals = highs + (n + row_block - 1) / row_block;
    Number maximum = -largest, sum = 0;
    for (int64_t start = 0, k = 0; start < n; start += row_block, k++) {
        const int64_t stop = start + row_block < n ? start + row_block : n;
        V m = splat<V>(-largest), sums = {};
        vectors(start, stop, STEP(int64_t i, int count) {
            const V v = bounded_value(each(x + i, count), p);
            store(buffer + i, v);
            m = at_least(m, v);
        });
        const Number high = highest(m);
        vectors(start, stop, STEP(int64_t i, int count) {
            const V e = exp_decay(load(buffer + i) - high);
            if (!logs) store(buffer + i, e);
            __builtin_prefetch(y + i, 1);  // the row's last loop would wait for it
            sums += only(e, count);
        });
        highs[k] = high;
        totals[k] = total(sums);
        maximum = high > maximum ? high : maximum;
    }
    for (int64_t start = 0, k = 0; start < n; start += row_block, k++) {
        highs[k] = highs[k] == maximum ? 1 : libm::exp(highs[k] - maximum);
        sum += totals[k] * highs[k];
    }
    for (int64_t start = 0, k = 0; start < n; start += row_block, k++) {
        const int64_t stop = start + row_block < n ? start + row_block : n;
        const Number scale = highs[k] / sum, log_sum = libm::log(sum);
        vectors(start, stop, STEP(int64_t i, int count) {
            put(y + i, logs ? (load(buffer + i) - maximum) - log_sum : load(buffer + i) * scale, count);
        });
    }
    if constexpr (!keeps_y) {
        a.kept[row] = maximum;
        a.kept[a.outer + row] = sum;
    }
}

// The gradient by the formula's value: (upstream - Σ upstream·q)·q with q the probabilities, and of
// their logarithms upstream - q·Σ upstream. A half type's q are formed again, in two loops: one
// would be a chain of operations twice as long, of which fewer run at a time.
INLINE V summand(V upstream, V q) { return logs ? upstream : upstream * q; }
INLINE V by_value(V upstream, V q, V sum) { return logs ? upstream - q * sum : (upstream - sum) * q; }
INLINE V kept_q(V kept) { return logs ? exp(kept) : kept; }

// Past an overflow the bounded value is constant. Out of line: it would slow down loops without one.
static __attribute__((noinline, cold)) V within_bounds(V g, V x, const V* p) {
    return abs(formula::value(x, p)) == std::numeric_limits<Number>::infinity() ? V{} : g;
}
// An impossible class may have an infinite slope.
INLINE V times(V g, V slope) { return g == 0 ? g : g * slope; }

// Whether a distribution may have an overflow, told without the formula by the probabilities of two of
// its classes, or their logarithms: beside +inf all are alike, or as far down as `lowest`.
template <class T> INLINE auto may_overflow(T a, T b, Number lowest) {
    return (a == b) | (a <= lowest) | (b <= lowest);
}
// Whether logarithms, or values from the maximum, may be of -inf. Probabilities are 0 there, and so are
// the gradients by these.
constexpr Number far_down = -largest * std::numeric_limits<Number>::epsilon() / 4;
INLINE Bits<V> may_be_infinite(V log) { return logs ? log <= far_down : Bits<V>{}; }

// Adds to the parameters' gradients what some elements contribute.
struct Learned {
    V sums[formula::parameters + 1] = {};

    inline __attribute__((always_inline)) void add(V g, V x, const V* p, int count) {
        V terms[formula::parameters + 1];
        formula::slope(x, p, terms);
        for (int t = 0; t < formula::parameters; t++) sums[t] += only(times(g, terms[t]), count);
    }
    void add_to(double* totals) const {
        for (int t = 0; t < formula::parameters; t++) totals[t] += total(sums[t]);
    }
};

template <bool learns>
INLINE void row_backward(const Arguments& a, int64_t row, const V* p, Number* buffer, double* totals) {
    const int64_t n = a.classes;
    const Storage *x = a.x + row * n, *upstream = a.upstream + row * n;
    const Number* q = a.kept + row * n;
    Storage* y = a.y + row * n;
    Number* const slopes = buffer + (n + width - 1) / width * width;
    V sums = {}, terms[formula::parameters + 1];
    bool overflows = keeps_y && may_overflow(q[0], q[n - 1], logs ? far_down : 0);
    if constexpr (keeps_y) {
        vectors(0, n, STEP(int64_t i, int count) {
            if constexpr (!learns) store(slopes + i, formula::slope(each(x + i, count), p, terms));
            sums += only(summand(each(upstream + i, count), kept_q(each(q + i, count))), count);
        });
    } else {
        const Number maximum = a.kept[row], scale = 1 / a.kept[a.outer + row];
        Bits<V> beyond = {};
        vectors(0, n, STEP(int64_t i, int count) {
            const V xs = each(x + i, count), log = bounded_value(xs, p) - maximum;
            beyond |= may_be_infinite(log);
            store(buffer + i, log);
            if constexpr (!learns) store(slopes + i, formula::slope(xs, p, terms));
        });
        vectors(0, n, STEP(int64_t i, int count) {
            const V q = exp_decay(load(buffer + i)) * scale;
            store(buffer + i, q);
            __builtin_prefetch(y + i, 1);  // as in row_forward
            sums += only(summand(each(upstream + i, count), q), count);
        });
        overflows = may_overflow(buffer[0], buffer[n - 1], 0) || any((Int)beyond);
    }
    const V sum = splat<V>(total(sums));
    Learned learned;
    vectors(0, n, STEP(int64_t i, int count) {
        const V kept = keeps_y ? each(q + i, count) : load(buffer + i), xs = each(x + i, count);
        V g = by_value(each(upstream + i, count), keeps_y ? kept_q(kept) : kept, sum);
        const bool checked = overflows || (keeps_y && any((Int)may_be_infinite(kept)));
        if (__builtin_expect(checked, 0)) g = within_bounds(g, xs, p);
        put(y + i, times(g, learns ? formula::slope(xs, p, terms) : load(slopes + i)), count);
        if constexpr (learns) learned.add(g, xs, p, count);
    });
    if constexpr (learns) learned.add_to(totals);
}

// ---- A strip of columns -----------------------------------------------------------------------

INLINE void columns_forward(
    const Arguments& a, int64_t first, int64_t statistic, int64_t columns, const V* p, Number* buffer
) {
    vectors(0, columns, STEP(int64_t c, int count) {
        const Storage* x = a.x + first + c;
        Storage* y = a.y + first + c;
        V m = splat<V>(-largest), sum = {};
        for (int64_t k = 0; k < a.classes; k++) {
            const V v = bounded_value(each(x + k * a.inner, count), p);
            store(buffer + k * width, v);
            m = at_least(m, v);
        }
        for (int64_t k = 0; k < a.classes; k++) {
            const V e = exp_decay(load(buffer + k * width) - m);
            if (!logs) store(buffer + k * width, e);
            sum += e;
        }
        const V scale = 1 / sum, log_sum = logs ? log(sum) : V{};
        for (int64_t k = 0; k < a.classes; k++) {
            const V v = load(buffer + k * width);
            put(y + k * a.inner, logs ? (v - m) - log_sum : v * scale, count);
        }
        if constexpr (!keeps_y) {
            for (int i = 0; i < count; i++) {
                a.kept[statistic + c + i] = m[i];
                a.kept[a.outer * a.inner + statistic + c + i] = sum[i];
            }
        }
    });
}

template <bool learns>
INLINE void columns_backward(
    const Arguments& a, int64_t first, int64_t statistic, int64_t columns, const V* p, Number* buffer,
    double* totals
) {
    Learned learned;
    vectors(0, columns, STEP(int64_t c, int count) {
        const Storage *x = a.x + first + c, *upstream = a.upstream + first + c;
        Storage* y = a.y + first + c;
        const Number* q = a.kept + first + c;
        Number* const slopes = buffer + a.classes * width;
        V sum = {}, terms[formula::parameters + 1];
        Bits<V> beyond = {};
        if constexpr (keeps_y) {
            for (int64_t k = 0; k < a.classes; k++)
                sum += summand(each(upstream + k * a.inner, count), kept_q(each(q + k * a.inner, count)));
            const V last = each(q + (a.classes - 1) * a.inner, count);
            beyond = may_overflow(each(q, count), last, logs ? far_down : 0);
        } else {
            V m = {}, total = splat<V>(1);
            for (int i = 0; i < count; i++) {
                m[i] = a.kept[statistic + c + i];
                total[i] = a.kept[a.outer * a.inner + statistic + c + i];
            }
            const V scale = 1 / total;
            for (int64_t k = 0; k < a.classes; k++) {
                const V xs = each(x + k * a.inner, count), log = bounded_value(xs, p) - m;
                beyond |= may_be_infinite(log);
                store(buffer + k * width, log);
                store(slopes + k * width, formula::slope(xs, p, terms));
            }
            for (int64_t k = 0; k < a.classes; k++) {
                const V q = exp_decay(load(buffer + k * width)) * scale;
                store(buffer + k * width, q);
                sum += summand(each(upstream + k * a.inner, count), q);
            }
            beyond |= may_overflow(load(buffer), load(buffer + (a.classes - 1) * width), 0);
        }
        const bool overflows = any((Int)beyond);
        for (int64_t k = 0; k < a.classes; k++) {
            const int64_t at = k * a.inner;
            const V kept = keeps_y ? each(q + at, count) : load(buffer + k * width), xs = each(x + at, count);
            V g = by_value(each(upstream + at, count), keeps_y ? kept_q(kept) : kept, sum);
            const bool checked = overflows || (keeps_y && any((Int)may_be_infinite(kept)));
            if (__builtin_expect(checked, 0)) g = within_bounds(g, xs, p);
            put(y + at, times(g, keeps_y ? formula::slope(xs, p, terms) : load(slopes + k * width)), count);
            if constexpr (learns) learned.add(g, xs, p, count);
        }
    });
    if constexpr (learns) learned.add_to(totals);
}

// ---- The entry --------------------------------------------------------------------------------

static void strips(int64_t begin, int64_t end, void* context) {
    Work& w = *(Work*)context;
    const Arguments a = w.a;  // a copy, which stores to y cannot alias
    const int64_t blocks = a.classes / row_block + 1;
    const int64_t room = 2 * ((a.inner == 1 ? 1 : width) * a.classes + width + blocks);
    Number* buffer = (Number*)std::malloc(room * sizeof(Number));
    if (!buffer) {
        __atomic_store_n(&w.out_of_memory, 1, __ATOMIC_RELAXED);
        return;
    }
    V p[formula::parameters + 1];
    for (int k = 0; k < formula::parameters; k++) p[k] = splat<V>(*a.parameters[k]);
    for (int64_t unit = begin; unit < end; unit++) {
        double* const totals = w.totals ? w.totals + unit * formula::parameters : nullptr;
        for (int t = 0; t < formula::parameters && totals; t++) totals[t] = 0;
        if (a.inner == 1) {
            if (!a.upstream) row_forward(a, unit, p, buffer);
            else if (totals) row_backward<true>(a, unit, p, buffer, totals);
            else row_backward<false>(a, unit, p, buffer, totals);
            continue;
        }
        const int64_t outer = unit / w.strips, column = unit % w.strips * column_strip;
        const int64_t first = outer * a.classes * a.inner + column, statistic = outer * a.inner + column;
        const int64_t count = column + column_strip < a.inner ? column_strip : a.inner - column;
        if (!a.upstream) columns_forward(a, first, statistic, count, p, buffer);
        else if (totals) columns_backward<true>(a, first, statistic, count, p, buffer, totals);
        else columns_backward<false>(a, first, statistic, count, p, buffer, totals);
    }
    std::free(buffer);
}

// 0, or 1 if there is no memory for the buffers.
extern "C" int zeta_kernel(const Arguments* arguments) {
    Work w{*arguments, (arguments->inner + column_strip - 1) / column_strip, 0, nullptr};
    const Arguments& a = w.a;
    if (a.inner == 1) w.strips = 1;
    const int64_t units = a.outer * w.strips, size = a.outer * a.classes * a.inner;
    const int parameters = formula::parameters;
    if (a.gradients) {
        w.totals = (double*)std::malloc(units * parameters * sizeof(double));
        if (!w.totals) return 1;
    }
    const int64_t units_per_thread = (units * grain + size - 1) / size;
    if (units <= units_per_thread || !a.parallel_for) strips(0, units, &w);
    else a.parallel_for(0, units, units_per_thread, strips, &w);
    if (a.gradients) {  // one after the other, whatever thread they come from
        for (int64_t i = 0; i < units * parameters; i++) a.gradients[i % parameters] += w.totals[i];
        formula::finish(a.parameters, 0, a.gradients);
        std::free(w.totals);
    }
    return w.out_of_memory;
}

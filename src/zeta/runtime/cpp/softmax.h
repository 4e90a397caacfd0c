// Softmax of a generated formula, forward and backward, each one pass over memory.
//
// The generated code defines, in namespace `formula`: Storage, V, parameters (see loops.h),
//   value(x, p)   the pre-activation
//   slope(x, p)   its derivative by x
//
// x is (outer, classes, inner); the softmax runs over the classes. A strip is what is computed at
// once: all classes of one row where inner is 1, else all classes of some neighbouring columns.
// Its values stay in a buffer of the arithmetic's type, so that half types are rounded once.
// Every distribution is summed by one thread in one order: the same bits for any thread count.

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
    int64_t outer, classes, inner;
    ParallelFor parallel_for;  // null: stay in this thread
    const Number* parameters[formula::parameters + 1];
};
struct Work {
    Arguments a;
    int64_t strips;  // per outer index
    int out_of_memory;
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
INLINE V bounded_value(V x, const V* p) {
    return at_most(at_least(formula::value(x, p), -largest), largest);
}

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
            store(buffer + i, e);
            __builtin_prefetch(y + i, 1);  // the row's last loop would wait for it
            sums += only(e, count);
        });
        highs[k] = high;
        totals[k] = total(sums);
        maximum = high > maximum ? high : maximum;
    }
    for (int64_t start = 0, k = 0; start < n; start += row_block, k++) {
        highs[k] = highs[k] == maximum ? 1 : std::exp(highs[k] - maximum);
        sum += totals[k] * highs[k];
    }
    for (int64_t start = 0, k = 0; start < n; start += row_block, k++) {
        const int64_t stop = start + row_block < n ? start + row_block : n;
        const Number scale = highs[k] / sum;
        vectors(start, stop, STEP(int64_t i, int count) {
            put(y + i, load(buffer + i) * scale, count);
        });
    }
    if constexpr (!keeps_y) {
        a.kept[row] = maximum;
        a.kept[a.outer + row] = sum;
    }
}

// With q the probabilities: (upstream - Σ upstream·q)·q·slope. A half type's are formed again, in
// two loops: one would be a chain of operations twice as long, of which fewer run at a time.
INLINE void row_backward(const Arguments& a, int64_t row, const V* p, Number* buffer) {
    const int64_t n = a.classes;
    const Storage *x = a.x + row * n, *upstream = a.upstream + row * n;
    const Number* q = a.kept + row * n;
    Storage* y = a.y + row * n;
    V sums = {};
    if constexpr (keeps_y) {
        vectors(0, n, STEP(int64_t i, int count) {
            sums += only(each(upstream + i, count) * each(q + i, count), count);
        });
    } else {
        const Number maximum = a.kept[row], scale = 1 / a.kept[a.outer + row];
        Number* const slopes = buffer + (n + width - 1) / width * width;
        vectors(0, n, STEP(int64_t i, int count) {
            const V xs = each(x + i, count);
            store(buffer + i, bounded_value(xs, p) - maximum);
            store(slopes + i, formula::slope(xs, p));
        });
        vectors(0, n, STEP(int64_t i, int count) {
            const V y = exp_decay(load(buffer + i)) * scale;
            store(buffer + i, y * load(slopes + i));
            sums += only(each(upstream + i, count) * y, count);
        });
    }
    const Number mean = total(sums);
    vectors(0, n, STEP(int64_t i, int count) {
        const V product = keeps_y ? each(q + i, count) * formula::slope(each(x + i, count), p)
                                  : load(buffer + i);
        put(y + i, (each(upstream + i, count) - mean) * product, count);
    });
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
            store(buffer + k * width, e);
            sum += e;
        }
        const V scale = 1 / sum;
        for (int64_t k = 0; k < a.classes; k++)
            put(y + k * a.inner, load(buffer + k * width) * scale, count);
        if constexpr (!keeps_y) {
            for (int i = 0; i < count; i++) {
                a.kept[statistic + c + i] = m[i];
                a.kept[a.outer * a.inner + statistic + c + i] = sum[i];
            }
        }
    });
}

INLINE void columns_backward(
    const Arguments& a, int64_t first, int64_t statistic, int64_t columns, const V* p, Number* buffer
) {
    vectors(0, columns, STEP(int64_t c, int count) {
        const Storage *x = a.x + first + c, *upstream = a.upstream + first + c;
        Storage* y = a.y + first + c;
        const Number* q = a.kept + first + c;
        V mean = {};
        if constexpr (keeps_y) {
            for (int64_t k = 0; k < a.classes; k++)
                mean += each(upstream + k * a.inner, count) * each(q + k * a.inner, count);
        } else {
            V m = {}, sum = splat<V>(1);
            for (int i = 0; i < count; i++) {
                m[i] = a.kept[statistic + c + i];
                sum[i] = a.kept[a.outer * a.inner + statistic + c + i];
            }
            const V scale = 1 / sum;
            Number* const slopes = buffer + a.classes * width;
            for (int64_t k = 0; k < a.classes; k++) {
                const V xs = each(x + k * a.inner, count);
                store(buffer + k * width, bounded_value(xs, p) - m);
                store(slopes + k * width, formula::slope(xs, p));
            }
            for (int64_t k = 0; k < a.classes; k++) {
                const V y = exp_decay(load(buffer + k * width)) * scale;
                store(buffer + k * width, y * load(slopes + k * width));
                mean += each(upstream + k * a.inner, count) * y;
            }
        }
        for (int64_t k = 0; k < a.classes; k++) {
            const int64_t at = k * a.inner;
            const V product = keeps_y ? each(q + at, count) * formula::slope(each(x + at, count), p)
                                      : load(buffer + k * width);
            put(y + at, (each(upstream + at, count) - mean) * product, count);
        }
    });
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
        if (a.inner == 1) {
            a.upstream ? row_backward(a, unit, p, buffer) : row_forward(a, unit, p, buffer);
            continue;
        }
        const int64_t outer = unit / w.strips, column = unit % w.strips * column_strip;
        const int64_t first = outer * a.classes * a.inner + column, statistic = outer * a.inner + column;
        const int64_t count = column + column_strip < a.inner ? column_strip : a.inner - column;
        if (a.upstream) columns_backward(a, first, statistic, count, p, buffer);
        else columns_forward(a, first, statistic, count, p, buffer);
    }
    std::free(buffer);
}

// 0, or 1 if there is no memory for the buffers.
extern "C" int zeta_kernel(const Arguments* arguments) {
    Work w{*arguments, (arguments->inner + column_strip - 1) / column_strip, 0};
    const Arguments& a = w.a;
    if (a.inner == 1) w.strips = 1;
    const int64_t units = a.outer * w.strips, size = a.outer * a.classes * a.inner;
    const int64_t units_per_thread = (units * grain + size - 1) / size;
    if (units <= units_per_thread || !a.parallel_for) strips(0, units, &w);
    else a.parallel_for(0, units, units_per_thread, strips, &w);
    return w.out_of_memory;
}

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
    Number* statistics;       // (2, outer, inner): the maximum, and the sum of e^(value - maximum)
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
constexpr Number largest = std::numeric_limits<Number>::max();

INLINE V each(const Storage* p, int64_t count) { return count >= width ? load(p) : load_some(p, count); }
INLINE void put(Storage* p, V v, int64_t count) { count >= width ? store(p, v) : store_some(p, v, count); }
// Lanes beyond the row's end count for nothing.
INLINE V only(V v, int64_t count) {
    for (int i = count < width ? count : width; i < width; i++) v[i] = 0;
    return v;
}
// A formula may overflow, and inf - inf would be NaN.
INLINE V bounded_value(V x, const V* p) {
    return at_most(at_least(formula::value(x, p), -largest), largest);
}
INLINE Number highest(V v) {
    Number m = v[0];
    for (int i = 1; i < width; i++) m = v[i] > m ? v[i] : m;
    return m;
}
INLINE Number total(V v) {
    Number sum = 0;
    for (int i = 0; i < width; i++) sum += v[i];
    return sum;
}

// ---- One row ----------------------------------------------------------------------------------

// Block by block, so that a value is still in the first cache when its exponential is taken; each
// block's exponentials are of its own maximum, and brought to the row's when they are written.
INLINE void row_forward(const Arguments& a, int64_t row, const V* p, Number* buffer) {
    const Storage* x = a.x + row * a.classes;
    const int64_t n = a.classes;
    Number* const highs = buffer + (n + width - 1) / width * width;
    Number* const totals = highs + (n + row_block - 1) / row_block;
    Number maximum = -largest, sum = 0;
    for (int64_t start = 0, k = 0; start < n; start += row_block, k++) {
        const int64_t stop = start + row_block < n ? start + row_block : n;
        V m = splat<V>(-largest), sums = {};
        for (int64_t i = start; i < stop; i += width) {
            const V v = bounded_value(each(x + i, n - i), p);
            store(buffer + i, v);
            m = at_least(m, v);
        }
        highs[k] = highest(m);
        for (int64_t i = start; i < stop; i += width) {
            const V e = exp(load(buffer + i) - highs[k]);
            store(buffer + i, e);
            sums += n - i >= width ? e : only(e, n - i);
        }
        totals[k] = total(sums);
        maximum = highs[k] > maximum ? highs[k] : maximum;
    }
    for (int64_t start = 0, k = 0; start < n; start += row_block, k++) {
        highs[k] = std::exp(highs[k] - maximum);
        sum += totals[k] * highs[k];
    }
    for (int64_t start = 0, k = 0; start < n; start += row_block, k++) {
        const int64_t stop = start + row_block < n ? start + row_block : n;
        const Number scale = highs[k] / sum;
        for (int64_t i = start; i < stop; i += width)
            put(a.y + row * n + i, load(buffer + i) * scale, n - i);
    }
    a.statistics[row] = maximum;
    a.statistics[a.outer + row] = sum;
}

// With y the probabilities: (upstream - Σ upstream·y)·y·slope
INLINE void row_backward(const Arguments& a, int64_t row, const V* p, Number* buffer) {
    const Storage *x = a.x + row * a.classes, *upstream = a.upstream + row * a.classes;
    const int64_t n = a.classes;
    const Number maximum = a.statistics[row], scale = 1 / a.statistics[a.outer + row];
    V sums = {};
    for (int64_t i = 0; i < n; i += width) {
        const V xs = each(x + i, n - i);
        const V y = exp(bounded_value(xs, p) - maximum) * scale;
        store(buffer + i, y * formula::slope(xs, p));
        const V term = each(upstream + i, n - i) * y;
        sums += n - i >= width ? term : only(term, n - i);
    }
    const Number mean = total(sums);
    for (int64_t i = 0; i < n; i += width)
        put(a.y + row * n + i, (each(upstream + i, n - i) - mean) * load(buffer + i), n - i);
}

// ---- A strip of columns -----------------------------------------------------------------------

INLINE void columns_forward(
    const Arguments& a, int64_t first, int64_t statistic, int64_t count, const V* p, Number* buffer
) {
    for (int64_t c = 0; c < count; c += width) {
        V m = splat<V>(-largest), sum = {};
        for (int64_t k = 0; k < a.classes; k++) {
            const V v = bounded_value(each(a.x + first + k * a.inner + c, count - c), p);
            store(buffer + k * column_strip + c, v);
            m = at_least(m, v);
        }
        for (int64_t k = 0; k < a.classes; k++) {
            const V e = exp(load(buffer + k * column_strip + c) - m);
            store(buffer + k * column_strip + c, e);
            sum += e;
        }
        const V scale = 1 / sum;
        for (int64_t k = 0; k < a.classes; k++)
            put(a.y + first + k * a.inner + c, load(buffer + k * column_strip + c) * scale, count - c);
        for (int i = 0; i < width && c + i < count; i++) {
            a.statistics[statistic + c + i] = m[i];
            a.statistics[a.outer * a.inner + statistic + c + i] = sum[i];
        }
    }
}

INLINE void columns_backward(
    const Arguments& a, int64_t first, int64_t statistic, int64_t count, const V* p, Number* buffer
) {
    for (int64_t c = 0; c < count; c += width) {
        V m = {}, scale = splat<V>(1), mean = {};
        for (int i = 0; i < width && c + i < count; i++) {
            m[i] = a.statistics[statistic + c + i];
            scale[i] = 1 / a.statistics[a.outer * a.inner + statistic + c + i];
        }
        for (int64_t k = 0; k < a.classes; k++) {
            const int64_t at = first + k * a.inner + c;
            const V xs = each(a.x + at, count - c);
            const V y = exp(bounded_value(xs, p) - m) * scale;
            store(buffer + k * column_strip + c, y * formula::slope(xs, p));
            mean += each(a.upstream + at, count - c) * y;
        }
        for (int64_t k = 0; k < a.classes; k++) {
            const int64_t at = first + k * a.inner + c;
            const V q = load(buffer + k * column_strip + c);
            put(a.y + at, (each(a.upstream + at, count - c) - mean) * q, count - c);
        }
    }
}

// ---- The entry --------------------------------------------------------------------------------

static void strips(int64_t begin, int64_t end, void* context) {
    Work& w = *(Work*)context;
    const Arguments& a = w.a;
    const int64_t blocks = a.classes / row_block + 1;
    const int64_t room = (a.inner == 1 ? 1 : column_strip) * a.classes + width + 2 * blocks;
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

// The loops around a generated formula: load, convert, evaluate, round once, store, sum.
//
// The generated code defines, in namespace `formula`:
//   Storage              float, double, Half or BFloat: the tensors' dtype
//   V                    the vector type that arithmetic runs in
//   parameters, sums     how many parameters there are, how many of their gradients are wanted
//   writes               whether there is an output element per input element
//   backward             whether outputs are multiplied by an upstream gradient
//   columns              how parameters vary, see Arguments
//   evaluate(x, p, out, terms)   one vector: the output, and the terms of the sums
//   finish(p, channel, totals)   multiplies the sums by what does not depend on x
//
// A sum is formed in float within the lanes of a unit of work, in double across units, always in
// the same order: units depend on the shape alone, so any number of threads gives the same bits.

// ---- Work -------------------------------------------------------------------------------------

using formula::Storage;
using formula::V;
using Number = Scalar<V>;
constexpr int width = lanes<V>;
constexpr int sums = formula::sums;

// Layout "segments": x is (outer, channels, inner), a parameter has one value per channel.
// Layout "columns": x is rows of `channels` elements, the last row perhaps shorter; `outer` is the
// number of elements.
typedef int (*ParallelFor)(int64_t, int64_t, int64_t, void (*)(int64_t, int64_t, void*), void*);
struct Arguments {
    const Storage* x;
    const Storage* upstream;
    Storage* y;
    Number* gradients;  // (sums, channels)
    int64_t outer, channels, inner;
    int64_t constant_upstream;  // whether `upstream` is one number for all elements
    ParallelFor parallel_for;   // null: stay in this thread
    const Number* parameters[formula::parameters + 1];
};

constexpr int64_t unit_size = 4096;        // elements that a unit of work has, if there are so many
constexpr int64_t serial_size = 32768;     // elements up to which a second thread does not pay
constexpr int64_t grain = 16384;           // elements that a thread has at least
constexpr int64_t fresh_bytes = 12 << 20;  // an output from here on is memory never touched before

INLINE int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One vector at offset i, of which `count` elements count.
template <bool whole>
INLINE void step(const Arguments& a, int64_t i, int count, V same, const V* p, V* totals) {
    const bool constant = a.constant_upstream;
    V out, terms[sums + 1];
    formula::evaluate(whole ? load(a.x + i) : load_some(a.x + i, count), p, out, terms);
    if constexpr (formula::backward) {
        const V g = constant ? same : whole ? load(a.upstream + i) : load_some(a.upstream + i, count);
        out = g * out;
        for (int k = 0; k < sums; k++) {
            V term = g * terms[k];
            for (int lane = count; !whole && lane < width; lane++) term[lane] = 0;
            totals[k] += term;
        }
    }
    if constexpr (formula::writes) whole ? store(a.y + i, out) : store_some(a.y + i, out, count);
}

INLINE V constant_upstream(const Arguments& a) {
    return a.constant_upstream ? load_some(a.upstream, 1) : V{};
}

// A run of elements with the same parameters.
template <bool prefetch>
INLINE void run(const Arguments& a, int64_t begin, int64_t end, const V* p, V* totals) {
    constexpr int64_t ahead = 1024;
    const V same = constant_upstream(a);
    int64_t i = begin;
    for (; i + width <= end; i += width) {
        if constexpr (prefetch) {
            __builtin_prefetch(a.x + i + ahead);
            if (formula::backward && !a.constant_upstream) __builtin_prefetch(a.upstream + i + ahead);
            if (formula::writes) __builtin_prefetch(a.y + i + ahead, 1);
        }
        step<true>(a, i, width, same, p, totals);
    }
    if (i < end) step<false>(a, i, end - i, same, p, totals);
}

struct Work {
    Arguments a;
    double* partial;  // (units, sums), or (row blocks, sums, channels)
    bool fresh;
    int64_t rows, row_blocks, blocks;  // rows per unit; units = row_blocks · channels · blocks
};

// ---- Layout "segments" ------------------------------------------------------------------------

static void segments(int64_t begin, int64_t end, void* context) {
    const Work& w = *(const Work*)context;
    const Arguments a = w.a;  // a copy, which stores to y cannot alias
    for (int64_t unit = begin; unit < end; unit++) {
        const int64_t block = unit % w.blocks, channel = unit / w.blocks % a.channels;
        const int64_t first = unit / w.blocks / a.channels * w.rows;
        const int64_t last = first + w.rows < a.outer ? first + w.rows : a.outer;
        const int64_t start = block * unit_size;
        const int64_t stop = w.blocks == 1 || start + unit_size > a.inner ? a.inner : start + unit_size;
        V p[formula::parameters + 1], totals[sums + 1] = {};
        for (int k = 0; k < formula::parameters; k++) p[k] = canonical(splat<V>(a.parameters[k][channel]));
        for (int64_t row = first; row < last; row++) {
            const int64_t at = (row * a.channels + channel) * a.inner;
            if (w.fresh) run<true>(a, at + start, at + stop, p, totals);
            else run<false>(a, at + start, at + stop, p, totals);
        }
        for (int k = 0; k < sums; k++) {
            double total = 0;
            for (int lane = 0; lane < width; lane++) total += totals[k][lane];
            w.partial[unit * sums + k] = total;
        }
    }
}

static void finish_segments(const Work& w) {
    const Arguments a = w.a;  // a copy, which stores to y cannot alias
    for (int64_t channel = 0; channel < a.channels; channel++) {
        double total[sums + 1] = {};
        for (int64_t row = 0; row < w.row_blocks; row++)
            for (int64_t block = 0; block < w.blocks; block++)
                for (int k = 0; k < sums; k++)
                    total[k] += w.partial[((row * a.channels + channel) * w.blocks + block) * sums + k];
        formula::finish(a.parameters, channel, total);
        for (int k = 0; k < sums; k++) a.gradients[k * a.channels + channel] = total[k];
    }
}

// ---- Layout "columns" -------------------------------------------------------------------------

constexpr int64_t column_block = 512;

static void columns(int64_t begin, int64_t end, void* context) {
    const Work& w = *(const Work*)context;
    const Arguments a = w.a;  // a copy, which stores to y cannot alias
    const V same = constant_upstream(a);
    for (int64_t unit = begin; unit < end; unit++) {
        const int64_t start = unit % w.blocks * column_block, first = unit / w.blocks * w.rows;
        const int64_t stop = start + column_block < a.channels ? start + column_block : a.channels;
        V totals[column_block / width][sums + 1] = {};
        for (int64_t row = first; row < first + w.rows; row++) {
            const int64_t at = row * a.channels;
            for (int64_t c = start; c < stop && at + c < a.outer; c += width) {
                const int64_t room = (stop < a.outer - at ? stop : a.outer - at) - c;
                V p[formula::parameters + 1];
                for (int k = 0; k < formula::parameters; k++)
                    p[k] = canonical(c + width <= stop ? load(a.parameters[k] + c)
                                                       : load_some(a.parameters[k] + c, stop - c));
                if (room >= width) step<true>(a, at + c, width, same, p, totals[(c - start) / width]);
                else step<false>(a, at + c, room, same, p, totals[(c - start) / width]);
            }
        }
        for (int k = 0; k < sums; k++)
            for (int64_t c = start; c < stop; c++)
                w.partial[(unit / w.blocks * sums + k) * a.channels + c] =
                    totals[(c - start) / width][k][(c - start) % width];
    }
}

static void finish_columns(const Work& w) {
    const Arguments a = w.a;  // a copy, which stores to y cannot alias
    for (int64_t c = 0; c < a.channels; c++) {
        double total[sums + 1] = {};
        for (int64_t row = 0; row < w.row_blocks; row++)
            for (int k = 0; k < sums; k++) total[k] += w.partial[(row * sums + k) * a.channels + c];
        formula::finish(a.parameters, c, total);
        for (int k = 0; k < sums; k++) a.gradients[k * a.channels + c] = total[k];
    }
}

// ---- The entry --------------------------------------------------------------------------------

// Fresh pages as huge ones: sixteen million elements are 16 page faults instead of 16 thousand.
static void prefer_huge_pages(void* start, int64_t bytes) {
#if defined(__linux__)
    const uintptr_t page = 4096, first = ((uintptr_t)start + page - 1) / page * page;
    madvise((void*)first, ((uintptr_t)start + bytes - first) / page * page, MADV_HUGEPAGE);
#endif
}

// 0, or 1 if there is no memory for the sums.
extern "C" int zeta_kernel(const Arguments* arguments) {
    Work w{*arguments};
    const Arguments a = w.a;  // a copy, which stores to y cannot alias
    const bool by_column = formula::columns;
    const int64_t size = by_column ? a.outer : a.outer * a.channels * a.inner;
    int64_t units;
    if (by_column) {
        w.rows = 64;
        w.row_blocks = divide_up(divide_up(a.outer, a.channels), w.rows);
        w.blocks = divide_up(a.channels, column_block);
        units = w.row_blocks * w.blocks;
    } else {
        w.rows = a.inner < unit_size ? unit_size / a.inner : 1;
        w.row_blocks = divide_up(a.outer, w.rows);
        w.blocks = divide_up(a.inner, unit_size);
        units = w.row_blocks * a.channels * w.blocks;
    }
    if (sums) {
        const int64_t partials = by_column ? w.row_blocks * a.channels : units;
        w.partial = (double*)std::malloc(partials * sums * sizeof(double));
        if (!w.partial) return 1;
    }
    w.fresh = size * (int64_t)sizeof(Storage) >= fresh_bytes;
    if (w.fresh && formula::writes) prefer_huge_pages(a.y, size * sizeof(Storage));

    const auto task = by_column ? columns : segments;
    const int64_t units_per_thread = divide_up(units * grain, size);
    if (size <= serial_size || !a.parallel_for) task(0, units, &w);
    else a.parallel_for(0, units, units_per_thread, task, &w);
    if (sums) {
        by_column ? finish_columns(w) : finish_segments(w);
        std::free(w.partial);
    }
    return 0;
}

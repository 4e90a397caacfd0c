// The loops around a generated formula: load, convert, evaluate, round once, store, sum.
//
// The generated code defines, in namespace `formula`:
//   Storage              float, double, Half or BFloat: the tensors' dtype
//   V                    the vector type that arithmetic runs in
//   elements, stores     how many tensors are read, and written
//   parameters, sums     how many parameters there are, how many of their gradients are wanted
//   backward             whether what is written and summed is multiplied by an upstream gradient
//   columns              how parameters vary, see Arguments
//   pairs                whether two inputs, and what is written for them, lie in turn: a b a b …
//   evaluate(x, p, out, terms)   one vector: what is written, and the terms of the sums
//   finish(p, channel, totals)   multiplies the sums by what does not vary
//
// A sum is formed in float within the lanes of a unit of work, in double across units, always in
// the same order: units depend on the shape alone, so any number of threads gives the same bits.

// ---- Work -------------------------------------------------------------------------------------

using formula::Storage;
using formula::V;
using Number = Scalar<V>;
constexpr int width = lanes<V>;
constexpr int elements = formula::elements, stores = formula::stores, sums = formula::sums;
constexpr bool reads_pairs = formula::pairs, writes_pairs = formula::pairs && stores == 2;

// Layout "segments": a tensor is (outer, channels, inner), and a row is (channels, inner); a
// parameter has one value per channel. Layout "columns": a row is (channels,), the last one perhaps
// shorter, and `outer` is the number of elements.
typedef int (*ParallelFor)(int64_t, int64_t, int64_t, void (*)(int64_t, int64_t, void*), void*);
struct Arguments {
    const Storage* upstream;  // row after row
    Number* gradients;        // (sums, channels)
    int64_t outer, channels, inner;
    int64_t constant_upstream;  // whether `upstream` is one number for all elements
    ParallelFor parallel_for;   // null: stay in this thread
    Storage* operands[elements + stores];
    int64_t steps[elements + stores];  // of each operand, from one row to the next; rows are dense
    const Number* parameters[formula::parameters + 1];
};

constexpr int64_t unit_size = 4096;        // elements that a unit of work has, if there are so many
constexpr int64_t serial_size = 32768;     // elements up to which a second thread does not pay
constexpr int64_t grain = 16384;           // elements that a thread has at least
constexpr int64_t fresh_bytes = 12 << 20;  // an output from here on is memory never touched before
constexpr int64_t huge_bytes = 2 << 20;    // an output from here on has room for a huge page

INLINE int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Where a row of each operand, or a part of it, begins.
struct Row {
    const Storage* x[elements];
    const Storage* upstream;
    Storage* y[stores + 1];
};
INLINE Row row_of(const Arguments& a, int64_t row, int64_t offset) {
    Row r;
    const int64_t read = reads_pairs ? 2 * offset : offset, written = writes_pairs ? 2 * offset : offset;
    for (int k = 0; k < elements; k++) r.x[k] = a.operands[k] + row * a.steps[k] + read;
    for (int k = 0; k < stores; k++)
        r.y[k] = a.operands[elements + k] + row * a.steps[elements + k] + written;
    r.upstream = a.upstream + (formula::backward ? row * a.channels * a.inner + offset : 0);
    return r;
}

template <bool whole> INLINE V vector_at(const Storage* p, int count) {
    return whole ? load(p) : load_some(p, count);
}

// The first and the second of each of `count` pairs.
template <bool whole> INLINE void load_pairs(const Storage* p, int count, V& a, V& b) {
    const int rest = 2 * count - width;
    const V low = whole || rest >= 0 ? load(p) : load_some(p, 2 * count);
    const V high = whole ? load(p + width) : rest > 0 ? load_some(p + width, rest) : low;
    split(low, high, a, b, Below<width>::type());
}
template <bool whole> INLINE void store_pairs(Storage* p, int count, V a, V b) {
    const int rest = 2 * count - width;
    V low, high;
    join(a, b, low, high, Below<width>::type());
    whole || rest >= 0 ? store(p, low) : store_some(p, low, 2 * count);
    if (whole) store(p + width, high);
    else if (rest > 0) store_some(p + width, high, rest);
}

// One vector at offset i, of which `count` elements count; an upstream gradient that is `constant`
// is `same` everywhere.
template <bool whole>
INLINE void step(
    const Row& r, int64_t i, int count, bool constant, V same, const V* p, V* totals
) {
    V x[elements], out[stores + 1], terms[sums + 1];
    if constexpr (reads_pairs) {
        const bool turned = r.x[1] < r.x[0];
        V a, b;
        load_pairs<whole>(r.x[turned] + 2 * i, count, a, b);
        x[0] = turned ? b : a, x[1] = turned ? a : b;
    } else {
        for (int k = 0; k < elements; k++) x[k] = vector_at<whole>(r.x[k] + i, count);
    }
    formula::evaluate(x, p, out, terms);
    if constexpr (formula::backward) {
        const V g = constant ? same : vector_at<whole>(r.upstream + i, count);
        for (int k = 0; k < stores; k++) out[k] = g * out[k];
        for (int k = 0; k < sums; k++) {
            V term = g * terms[k];
            for (int lane = count; !whole && lane < width; lane++) term[lane] = 0;
            totals[k] += term;
        }
    }
    if constexpr (writes_pairs) {
        const bool turned = r.y[1] < r.y[0];
        const V a = turned ? out[1] : out[0], b = turned ? out[0] : out[1];
        store_pairs<whole>(r.y[turned] + 2 * i, count, a, b);
    } else {
        for (int k = 0; k < stores; k++)
            whole ? store(r.y[k] + i, out[k]) : store_some(r.y[k] + i, out[k], count);
    }
}

INLINE V constant_upstream(const Arguments& a) {
    return a.constant_upstream ? load_some(a.upstream, 1) : V{};
}

// A run of elements with the same parameters.
template <bool prefetch>
INLINE void run(const Row& r, int64_t size, bool constant, V same, const V* p, V* totals) {
    constexpr int64_t ahead = 1024;
    int64_t i = 0;
    for (; i + width <= size; i += width) {
        if constexpr (prefetch) {
            for (int k = 0; k < elements; k++) __builtin_prefetch(r.x[k] + (1 + reads_pairs) * i + ahead);
            if (formula::backward && !constant) __builtin_prefetch(r.upstream + i + ahead);
            for (int k = 0; k < stores; k++) __builtin_prefetch(r.y[k] + (1 + writes_pairs) * i + ahead, 1);
        }
        step<true>(r, i, width, constant, same, p, totals);
    }
    if (i < size) step<false>(r, i, size - i, constant, same, p, totals);
}

struct Work {
    Arguments a;
    double* partial;  // (units, sums), or (row blocks, sums, channels)
    bool fresh;
    int64_t rows, row_blocks, blocks;  // rows per unit; units = row_blocks · channels · blocks
    int64_t block;                     // elements of a row that a unit has
};

// ---- Layout "segments" ------------------------------------------------------------------------

static void segments(int64_t begin, int64_t end, void* context) {
    const Work& w = *(const Work*)context;
    const Arguments a = w.a;  // a copy, which stores to y cannot alias
    const V same = constant_upstream(a);
    for (int64_t unit = begin; unit < end; unit++) {
        const int64_t block = unit % w.blocks, channel = unit / w.blocks % a.channels;
        const int64_t first = unit / w.blocks / a.channels * w.rows;
        const int64_t last = first + w.rows < a.outer ? first + w.rows : a.outer;
        const int64_t start = block * w.block, stop = block + 1 == w.blocks ? a.inner : start + w.block;
        V p[formula::parameters + 1], totals[sums + 1] = {};
        for (int k = 0; k < formula::parameters; k++) p[k] = canonical(splat<V>(a.parameters[k][channel]));
        for (int64_t row = first; row < last; row++) {
            const Row r = row_of(a, row, channel * a.inner + start);
            if (w.fresh) run<true>(r, stop - start, a.constant_upstream, same, p, totals);
            else run<false>(r, stop - start, a.constant_upstream, same, p, totals);
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
            const int64_t left = a.outer - row * a.channels, end = stop < left ? stop : left;
            const Row r = row_of(a, row, 0);
            for (int64_t c = start; c < end; c += width) {
                V p[formula::parameters + 1], *const sums_here = totals[(c - start) / width];
                for (int k = 0; k < formula::parameters; k++)
                    p[k] = canonical(c + width <= stop ? load(a.parameters[k] + c)
                                                       : load_some(a.parameters[k] + c, stop - c));
                if (c + width <= end) step<true>(r, c, width, a.constant_upstream, same, p, sums_here);
                else step<false>(r, c, end - c, a.constant_upstream, same, p, sums_here);
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
        w.block = divide_up(divide_up(a.inner, w.blocks), width) * width;
        units = w.row_blocks * a.channels * w.blocks;
    }
    if (sums) {
        const int64_t partials = by_column ? w.row_blocks * a.channels : units;
        w.partial = (double*)std::malloc(partials * sums * sizeof(double));
        if (!w.partial) return 1;
    }
    const int64_t bytes = size * sizeof(Storage), row = a.channels * a.inner;
    w.fresh = bytes >= fresh_bytes;
    // What one tensor holds in two parts is asked for twice.
    for (int k = 0; bytes >= huge_bytes && k < stores; k++) {
        const int64_t last = (size / row - 1) * a.steps[elements + k] + (1 + writes_pairs) * row;
        prefer_huge_pages(a.operands[elements + k], last * sizeof(Storage));
    }

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

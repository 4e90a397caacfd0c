// Launches CPU kernels, and is their autograd function, without Python on the way.
//
// It takes what needs no thought: dense inputs that lie alike, scalars and vectors of them in the
// dtype that arithmetic runs in. For everything else, and for derivatives of the gradients, it
// leaves the work to `zeta.kernels`, which knows all cases.

#include <Python.h>

#include <ATen/TracerMode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/zeros.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/python_variable.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_map>

using at::Tensor;
using at::TensorList;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using Kernel = int (*)(const uint64_t* words);

// PyTorch's parallel loop; 0 to stay in this thread.
static std::atomic<uint64_t> parallel_for{0};

struct Gil {
    PyGILState_STATE state = PyGILState_Ensure();
    ~Gil() { PyGILState_Release(state); }
};

struct Reference {  // owned
    PyObject* object;
    explicit Reference(PyObject* object) : object(object) {}
    Reference(const Reference&) = delete;
    ~Reference() { Py_XDECREF(object); }
};

// Where the kernel's operands lie in their tensors.
struct Places {
    std::vector<int64_t> offsets, steps;  // in elements, per operand
};

// What calls alike share; see `zeta.kernels.dispatch._Elementwise`, `zeta.kernels.softmax._Softmax`.
// There are few, and they stay: a number is all that compiled autograd lets a node keep beside tensors.
struct Plan {
    PyObject* call;  // asked for kernels of gradients, and for what is not plain
    Kernel value;
    int64_t inputs;             // tensors that hold the inputs; the others are parameters
    std::vector<int64_t> lengths;  // of each parameter, which is a vector; 0 for a scalar
    at::ScalarType arithmetic;  // the dtype that it runs in
    int64_t dim;                // of a softmax; else -1
    // Of inputs that lie otherwise than dense and alike; these plans are for one shape each.
    bool has_places = false, is_packed = false;  // whether one tensor holds two inputs
    std::vector<std::vector<int64_t>> own;  // the strides of the tensors that hold the inputs
    std::vector<int64_t> shape, strides;    // of the value
    std::vector<int64_t> extents;           // outer, channels, inner
    Places forward, backward;

    std::mutex mutex;
    std::unordered_map<uint64_t, Kernel> gradients;  // by which tensors want one

    bool is_softmax() const { return dim >= 0; }

    // Memory for what lies as the value does.
    Tensor empty(const Tensor& x) const {
        return has_places ? at::empty_strided(shape, strides, x.options()) : at::empty_like(x);
    }

    // The kernel of these tensors' gradients; null if there is none, or Python has raised.
    Kernel gradient(uint64_t wanted) {
        {
            std::lock_guard<std::mutex> lock(mutex);
            const auto found = gradients.find(wanted);
            if (found != gradients.end()) return found->second;
        }
        Gil gil;
        Reference address(PyObject_CallMethod(call, "gradient_address", "K", (unsigned long long)wanted));
        if (!address.object) throw python_error();
        const Kernel kernel = (Kernel)PyLong_AsUnsignedLongLong(address.object);
        std::lock_guard<std::mutex> lock(mutex);
        return gradients[wanted] = kernel;
    }
};

static bool lies_as(const Tensor& x, at::IntArrayRef strides) { return x.strides() == strides; }

// Whether the kernel can read these tensors where they lie.
static bool fits(const Plan& plan, TensorList tensors) {
    const Tensor& x = tensors[0];
    if (x.numel() == 0 || !(plan.has_places || x.is_non_overlapping_and_dense())) return false;
    if (plan.is_softmax() && !x.is_contiguous()) return false;
    for (int64_t i = 0; i < plan.inputs; i++)
        if (!lies_as(tensors[i], plan.has_places ? at::IntArrayRef(plan.own[i]) : x.strides())) return false;
    for (size_t i = plan.inputs; i < tensors.size(); i++) {
        if (tensors[i].scalar_type() != plan.arithmetic) return false;
        const int64_t length = plan.lengths[i - plan.inputs];
        if (length && !(tensors[i].numel() == length && tensors[i].is_contiguous())) return false;
    }
    return true;
}

using Words = c10::SmallVector<uint64_t, 40>;

static void add_parameters(Words& words, const Plan& plan, TensorList tensors) {
    for (size_t i = plan.inputs; i < tensors.size(); i++) {
        const uint64_t parameter = (uint64_t)tensors[i].data_ptr(), bytes = tensors[i].element_size();
        for (int64_t k = 0; k < tensors[i].numel(); k++) words.push_back(parameter + k * bytes);
    }
}

static bool run(const Plan& plan, Kernel kernel, TensorList tensors, const std::vector<void*>& stores,
                const Places& places, const Tensor* upstream, bool is_one, void* totals) {
    const Tensor& x = tensors[0];
    const int64_t width = x.element_size(), size = x.numel();
    Words words = {
        upstream ? (uint64_t)upstream->data_ptr() : 0, (uint64_t)totals, 1, 1, (uint64_t)size, is_one, parallel_for};
    if (plan.has_places) std::copy(plan.extents.begin(), plan.extents.end(), words.begin() + 2);
    const size_t first = words.size();
    for (int64_t i = 0; i < plan.inputs; i++) words.push_back((uint64_t)tensors[i].data_ptr());
    if (plan.is_packed) words.push_back(words[first]);  // the other input, in the same tensor
    for (void* store : stores) words.push_back((uint64_t)store);
    const size_t operands = words.size() - first;
    for (size_t i = 0; i < operands && plan.has_places; i++) words[first + i] += width * places.offsets[i];
    for (size_t i = 0; i < operands; i++) words.push_back(plan.has_places ? places.steps[i] : size);
    add_parameters(words, plan, tensors);
    return kernel(words.data()) == 0;
}

// x as (outer, classes, inner).
struct Extents {
    int64_t outer, classes, inner;
    Extents(const Plan& plan, const Tensor& x)
        : classes(x.size(plan.dim)), inner(c10::multiply_integers(x.sizes().slice(plan.dim + 1))) {
        outer = x.numel() / (classes * inner);
    }
};

// A softmax, or its gradient by x.
static bool run_softmax(const Plan& plan, TensorList tensors, void* upstream, const Tensor& y, const Tensor& kept) {
    const Extents x(plan, tensors[0]);
    Words words = {(uint64_t)tensors[0].data_ptr(), (uint64_t)upstream, (uint64_t)y.data_ptr(),
                   (uint64_t)kept.data_ptr(), 0, (uint64_t)x.outer, (uint64_t)x.classes, (uint64_t)x.inner, parallel_for};
    add_parameters(words, plan, tensors);
    return plan.value(words.data()) == 0;
}

// The value, and what a softmax keeps for backward: see softmax.h.
static std::pair<Tensor, Tensor> value_of(const Plan& plan, TensorList tensors) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const Tensor &x = tensors[0], y = plan.empty(x);
    if (!plan.is_softmax()) {
        run(plan, plan.value, tensors, {y.data_ptr()}, plan.forward, nullptr, false, nullptr);
        return {y, Tensor()};
    }
    Tensor kept = y;
    if (x.scalar_type() != plan.arithmetic) {
        const Extents of(plan, x);
        kept = at::empty({2, of.outer, of.inner}, x.options().dtype(plan.arithmetic));
    }
    if (!run_softmax(plan, tensors, nullptr, y, kept)) {
        PyErr_NoMemory();
        throw python_error();
    }
    return {y, kept};
}

// Whether nothing is active that must see the single operations: a transform, a mode, a tracer.
static bool is_eager() {
    return !c10::impl::TorchDispatchModeTLS::stack_len() && !at::tracer::impl::is_dispatch_enabled() &&
           !c10::impl::tls_is_dispatch_key_included(at::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

// Whether it is an ordinary CPU tensor, made in inference mode or not, of a dtype that kernels take.
static bool is_plain(const Tensor& x) {
    const auto keys_in = [](bool inference_mode) {
        c10::InferenceMode mode(inference_mode);
        return at::empty({0}, at::kCPU).key_set();
    };
    static const auto usual = keys_in(false), inference = keys_in(true);
    const auto keys = x.key_set();
    return (keys == usual || keys == inference) && at::isFloatingType(x.scalar_type()) &&
           x.element_size() > 1 && !torch::autograd::isFwGradDefined(x);
}

// A softmax's gradient by x; none if another is wanted.
static variable_list softmax_gradients(
    const Plan& plan, TensorList tensors, const Tensor& kept, const Tensor& upstream, uint64_t wanted
) {
    const bool by_x_alone = wanted == 1;
    if (!by_x_alone || !is_plain(kept) || !kept.is_contiguous() || kept.scalar_type() != plan.arithmetic) return {};
    variable_list found(tensors.size());
    found[0] = at::empty_like(tensors[0]);
    if (!run_softmax(plan, tensors, upstream.contiguous().data_ptr(), found[0], kept)) return {};
    return found;
}

// The tensors' gradients by a kernel; none if there is none, or not here.
static variable_list gradients_of(
    Plan& plan, TensorList tensors, const Tensor& kept, Tensor upstream, uint64_t wanted
) {
    if (at::GradMode::is_enabled() || !is_eager() || !is_plain(upstream)) return {};
    if (!std::all_of(tensors.begin(), tensors.end(), is_plain) || !fits(plan, tensors)) return {};
    if (upstream.scalar_type() != tensors[0].scalar_type()) return {};
    if (plan.is_softmax()) return softmax_gradients(plan, tensors, kept, upstream, wanted);
    const Kernel kernel = plan.gradient(wanted);
    if (!kernel) return {};
    const Tensor& x = tensors[0];
    const at::IntArrayRef strides = plan.has_places ? at::IntArrayRef(plan.strides) : x.strides();
    const auto steps = upstream.strides();
    const bool is_one = std::all_of(steps.begin(), steps.end(), [](int64_t step) { return step == 0; });
    if (!is_one && !lies_as(upstream, strides))
        upstream = at::empty_strided(upstream.sizes(), strides, upstream.options()).copy_(upstream);

    variable_list found(tensors.size());
    std::vector<void*> stores;
    const auto is_wanted = [&](size_t i) { return wanted >> i & 1; };
    for (int64_t i = 0; i < plan.inputs; i++) {
        if (!is_wanted(i)) continue;
        found[i] = plan.is_packed ? at::empty_like(x) : plan.empty(tensors[i]);
        stores.resize(stores.size() + (plan.is_packed ? 2 : 1), found[i].data_ptr());
    }
    int64_t sums = 0;
    for (size_t i = plan.inputs; i < tensors.size(); i++) sums += is_wanted(i) ? tensors[i].numel() : 0;
    const Tensor totals = sums ? at::zeros({sums}, x.options().dtype(plan.arithmetic)) : Tensor();
    if (!run(plan, kernel, tensors, stores, plan.backward, &upstream, is_one, sums ? totals.data_ptr() : nullptr))
        return {};
    int64_t sum = 0;
    for (size_t i = plan.inputs; i < tensors.size(); i++) {
        if (!is_wanted(i)) continue;
        const int64_t count = tensors[i].numel();
        found[i] = totals.narrow(0, sum, count).view(tensors[i].sizes());
        sum += count;
    }
    return found;
}

// The same as `zeta.kernels.function` does it, whatever the tensors are.
static variable_list in_python(const Plan& plan, TensorList tensors, const Tensor& upstream, uint64_t wanted) {
    Gil gil;
    Reference list(PyTuple_New(tensors.size())), flags(PyTuple_New(tensors.size()));
    for (size_t i = 0; i < tensors.size(); i++) {
        PyTuple_SET_ITEM(list.object, i, THPVariable_Wrap(tensors[i]));
        PyTuple_SET_ITEM(flags.object, i, PyBool_FromLong(wanted >> i & 1));
    }
    Reference above(THPVariable_Wrap(upstream));
    Reference found(PyObject_CallMethod(plan.call, "gradients", "OOO", list.object, above.object, flags.object));
    if (!found.object) throw python_error();
    variable_list gradients(tensors.size());
    for (size_t i = 0; i < tensors.size(); i++) {
        PyObject* gradient = PyTuple_GET_ITEM(found.object, i);
        if (gradient != Py_None) gradients[i] = THPVariable_Unpack(gradient);
    }
    return gradients;
}

struct Fused : torch::autograd::Function<Fused> {
    static Tensor forward(AutogradContext* context, const Plan* plan, TensorList tensors) {
        const auto [y, kept] = value_of(*plan, tensors);
        variable_list saved = tensors.vec();
        if (kept.defined()) saved.push_back(kept);
        context->save_for_backward(std::move(saved));
        context->saved_data["plan"] = (int64_t)plan;
        context->set_materialize_grads(false);
        return y;
    }

    static variable_list backward(AutogradContext* context, const variable_list& upstream) {
        Plan& plan = *(Plan*)context->saved_data["plan"].toInt();
        const variable_list saved = context->get_saved_variables();
        const TensorList tensors = TensorList(saved).slice(0, saved.size() - plan.is_softmax());
        variable_list found(tensors.size());
        if (upstream[0].defined()) {
            uint64_t wanted = 0;
            for (size_t i = 0; i < tensors.size(); i++) wanted |= (uint64_t)context->needs_input_grad(i) << i;
            found = gradients_of(plan, tensors, saved.back(), upstream[0], wanted);
            if (found.empty()) found = in_python(plan, saved, upstream[0], wanted);
            found.resize(tensors.size());
        }
        found.insert(found.begin(), Tensor());  // for the plan
        return found;
    }
};

// ---- For Python ---------------------------------------------------------------------------------

static std::vector<int64_t> integers(PyObject* sequence) {
    std::vector<int64_t> values;
    Reference fast(PySequence_Fast(sequence, "a sequence of integers"));
    if (!fast.object) throw python_error();
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(fast.object); i++)
        values.push_back(PyLong_AsLongLong(PySequence_Fast_GET_ITEM(fast.object, i)));
    if (PyErr_Occurred()) throw python_error();
    return values;
}

// plan(call, value, inputs, lengths, is_double, is_packed, lies, dim): a plan, as a number; see
// `_Elementwise.plan`.
static PyObject* plan(PyObject*, PyObject* arguments) {
    HANDLE_TH_ERRORS
    PyObject *call, *lengths, *lies;
    unsigned long long value;
    long long inputs, dim;
    int is_double, is_packed;
    if (!PyArg_ParseTuple(
            arguments, "OKLOppOL", &call, &value, &inputs, &lengths, &is_double, &is_packed, &lies, &dim))
        return nullptr;
    auto made = std::make_unique<Plan>();
    made->value = (Kernel)value;
    made->inputs = inputs;
    made->lengths = integers(lengths);
    made->arithmetic = is_double ? at::kDouble : at::kFloat;
    made->is_packed = is_packed;
    made->dim = dim;
    made->has_places = lies != Py_None;
    if (made->has_places) {
        PyObject* own = PyTuple_GET_ITEM(lies, 0);
        for (int64_t i = 0; i < inputs; i++) made->own.push_back(integers(PyTuple_GET_ITEM(own, i)));
        std::vector<int64_t>* parts[] = {&made->shape, &made->strides, &made->extents, &made->forward.offsets,
                                         &made->forward.steps, &made->backward.offsets, &made->backward.steps};
        for (int i = 0; i < 7; i++) *parts[i] = integers(PyTuple_GET_ITEM(lies, i + 1));
    }
    made->call = Py_NewRef(call);
    return PyLong_FromVoidPtr(made.release());
    END_HANDLE_TH_ERRORS
}

// launch(plan, *tensors): the value, differentiable; None if Python must do it.
static PyObject* launch(PyObject*, PyObject* const* arguments, Py_ssize_t count) {
    HANDLE_TH_ERRORS
    const Plan* plan = (const Plan*)PyLong_AsVoidPtr(arguments[0]);
    variable_list tensors;
    bool is_differentiated = false;
    for (Py_ssize_t i = 1; i < count; i++) {
        tensors.push_back(THPVariable_Unpack(arguments[i]));
        is_differentiated |= tensors.back().requires_grad();
    }
    if (!fits(*plan, tensors)) Py_RETURN_NONE;
    if (is_differentiated && at::GradMode::is_enabled())
        return THPVariable_Wrap(Fused::apply(plan, TensorList(tensors)));
    return THPVariable_Wrap(value_of(*plan, tensors).first);
    END_HANDLE_TH_ERRORS
}

// takes(tensor): whether kernels take it now; false also where Python should look again.
static PyObject* takes(PyObject*, PyObject* object) {
    return PyBool_FromLong(THPVariable_CheckExact(object) && is_eager() && is_plain(THPVariable_Unpack(object)));
}

static PyObject* set_parallel_for(PyObject*, PyObject* address) {
    parallel_for = PyLong_AsUnsignedLongLong(address);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"plan", plan, METH_VARARGS, nullptr},
    {"launch", (PyCFunction)(void*)launch, METH_FASTCALL, nullptr},
    {"takes", takes, METH_O, nullptr},
    {"set_parallel_for", set_parallel_for, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr},
};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "native", nullptr, -1, methods};
PyMODINIT_FUNC PyInit_native() { return PyModule_Create(&module); }

// The operators that stand in an optimised symbol.
//
//   _mxtrt_engine  (key, num_inputs, num_outputs)  runs the engine registered under `key`
//   _mxtrt_heads   (num)                           num inputs -> num outputs, copied: its only use
//                                                  is that outputs keep names such as `x_output1`
//
// A node holds a key and never the engine: MXNet copies attributes and creates the operator's state
// anew on nearly every Gluon call.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "boundary.h"
#include "bridge.h"
#include "mxnet/lib_api.h"
#include "table.h"

namespace mxtrt {
namespace {

using mxnet::ext::CustomStatefulOp;
using mxnet::ext::MX_FAIL;
using mxnet::ext::MX_SUCCESS;
using mxnet::ext::MXContext;
using mxnet::ext::MXReturnValue;
using Attributes = std::unordered_map<std::string, std::string>;
using Shapes = std::vector<std::vector<unsigned int>>;

constexpr unsigned int kUnknownSize = UINT32_MAX;  // how MXNet's -1 arrives in inferShape
constexpr int kMaxArrays = 4096;

MXReturnValue FailDetached(const std::string& key) {
  return Fail("the engine '" + key +
              "' cannot run: mxtrt is detached from MXNet, because the interpreter is exiting or "
              "mxtrt was not imported in this process");
}

// ------------------------------------------------------------------------------- attributes

bool ReadCount(const Attributes& attributes, const char* name, int* count) {
  const auto found = attributes.find(name);
  if (found == attributes.end()) {
    Fail(std::string("the attribute '") + name + "' is missing");
    return false;
  }
  char* end = nullptr;
  const int64_t value = std::strtoll(found->second.c_str(), &end, 10);
  if (end == found->second.c_str() || *end != '\0' || value < 0 || value > kMaxArrays) {
    Fail(std::string("the attribute '") + name + "' is '" + found->second +
         "' and must be a number from 0 to " + std::to_string(kMaxArrays));
    return false;
  }
  *count = static_cast<int>(value);
  return true;
}

const std::string* ReadKey(const Attributes& attributes) {
  const auto found = attributes.find("key");
  if (found == attributes.end()) {
    Fail("_mxtrt_engine has no attribute 'key'");
    return nullptr;
  }
  return &found->second;
}

// ---------------------------------------------------------------------------- _mxtrt_engine

MXReturnValue ParseEngine(const Attributes& attributes, int* num_inputs, int* num_outputs) {
  return Guarded([&] {
    const bool ok = ReadCount(attributes, "num_inputs", num_inputs) &&
                    ReadCount(attributes, "num_outputs", num_outputs) &&
                    ReadKey(attributes) != nullptr;
    return ok ? MX_SUCCESS : MX_FAIL;
  });
}

MXReturnValue InferEngineType(const Attributes& attributes, std::vector<int>* in_types,
                              std::vector<int>* out_types) {
  return Guarded([&] {
    const std::string* key = ReadKey(attributes);
    if (key == nullptr) return MX_FAIL;
    const TableInUse table;
    if (table.get() == nullptr) return FailDetached(*key);
    ErrorText error;
    const int status = table.get()->infer_type(
        key->c_str(), static_cast<int>(in_types->size()), in_types->data(),
        static_cast<int>(out_types->size()), out_types->data(), error.text, sizeof(error.text));
    return status == 0 ? MX_SUCCESS : FailWith(error);
  });
}

bool AllSizesKnown(const Shapes& shapes, const std::string& key) {
  for (size_t i = 0; i < shapes.size(); ++i) {
    if (std::count(shapes[i].begin(), shapes[i].end(), kUnknownSize) != 0) {
      FailUnknownShape(static_cast<int>(i), key);
      return false;
    }
  }
  return true;
}

bool StoreOutputShapes(const std::vector<int32_t>& ndims, const std::vector<int64_t>& sizes,
                       const std::string& key, Shapes* out_shapes) {
  for (size_t i = 0; i < out_shapes->size(); ++i) {
    const int64_t* first = sizes.data() + i * MXTRT_MAX_NDIM;
    const bool fits = ndims[i] >= 0 && ndims[i] <= MXTRT_MAX_NDIM &&
                      std::all_of(first, first + ndims[i], [](int64_t size) {
                        return size >= 0 && size < static_cast<int64_t>(kUnknownSize);
                      });
    if (!fits) {
      Fail("output " + std::to_string(i) + " of the engine '" + key +
           "' has a shape that MXNet's library interface cannot carry (a size below 0 or above "
           "2^32 - 2, or more than 32 dimensions)");
      return false;
    }
    (*out_shapes)[i].assign(first, first + ndims[i]);
  }
  return true;
}

MXReturnValue InferEngineShape(const Attributes& attributes, Shapes* in_shapes,
                               Shapes* out_shapes) {
  return Guarded([&] {
    const std::string* key = ReadKey(attributes);
    if (key == nullptr || !AllSizesKnown(*in_shapes, *key)) return MX_FAIL;

    std::vector<int32_t> in_ndims;
    std::vector<std::vector<int64_t>> in_sizes;
    std::vector<const int64_t*> in_pointers;
    for (const auto& shape : *in_shapes) {
      in_ndims.push_back(static_cast<int32_t>(shape.size()));
      in_sizes.emplace_back(shape.begin(), shape.end());
      in_pointers.push_back(in_sizes.back().data());
    }
    std::vector<int32_t> out_ndims(out_shapes->size());
    std::vector<int64_t> out_sizes(out_shapes->size() * MXTRT_MAX_NDIM);

    const TableInUse table;
    if (table.get() == nullptr) return FailDetached(*key);
    ErrorText error;
    const int status = table.get()->infer_shape(
        key->c_str(), static_cast<int>(in_ndims.size()), in_ndims.data(), in_pointers.data(),
        static_cast<int>(out_ndims.size()), out_ndims.data(), out_sizes.data(), error.text,
        sizeof(error.text));
    if (status != 0) return FailWith(error);
    return StoreOutputShapes(out_ndims, out_sizes, *key, out_shapes) ? MX_SUCCESS : MX_FAIL;
  });
}

// MXNet's own rule for operators without this function refuses those that have no input.
MXReturnValue InferDenseStorage(const Attributes&, std::vector<int>* in_types,
                                std::vector<int>* out_types) {
  return Guarded([&] {
    const auto is_sparse = [](int type) { return type > mxnet::ext::kDefaultStorage; };
    if (std::any_of(in_types->begin(), in_types->end(), is_sparse)) {
      return Fail("an engine takes dense arrays only; convert with tostype('default')");
    }
    std::fill(in_types->begin(), in_types->end(), mxnet::ext::kDefaultStorage);
    std::fill(out_types->begin(), out_types->end(), mxnet::ext::kDefaultStorage);
    return MX_SUCCESS;
  });
}

class EngineState : public Runnable {
 public:
  explicit EngineState(const std::string& key) : key_(key) {}

  MXReturnValue Run(const std::vector<MxtrtTensor>& inputs, const std::vector<MxtrtTensor>& outputs,
                    void* stream) override {
    const TableInUse table;
    if (table.get() == nullptr) return FailDetached(key_);
    ErrorText error;
    const int status = table.get()->execute(key_.c_str(), static_cast<int>(inputs.size()),
                                            inputs.data(), static_cast<int>(outputs.size()),
                                            outputs.data(), stream, error.text, sizeof(error.text));
    return status == 0 ? MX_SUCCESS : FailWith(error);
  }

 private:
  const std::string key_;
};

// Once for each GPU; others wait, but not what the preparation itself runs.
MXReturnValue PrepareGpu(int device_id) {
  static std::recursive_mutex lock;
  static std::set<int> prepared;
  const std::lock_guard<std::recursive_mutex> guard(lock);
  if (!prepared.insert(device_id).second) return MX_SUCCESS;
  const TableInUse table;
  if (table.get() == nullptr) return MX_SUCCESS;
  ErrorText error;
  if (table.get()->prepare_gpu(device_id, error.text, sizeof(error.text)) == 0) return MX_SUCCESS;
  prepared.erase(device_id);
  return FailWith(error);
}

MXReturnValue CreateEngine(const Attributes& attributes, const MXContext& context, const Shapes&,
                           const std::vector<int>, CustomStatefulOp** state) {
  return Guarded([&] {
    const std::string* key = ReadKey(attributes);
    if (key == nullptr) return MX_FAIL;
    if (context.dev_type == "gpu" && PrepareGpu(context.dev_id) != MX_SUCCESS) return MX_FAIL;
    *state = CustomStatefulOp::create<EngineState>(*key);
    return MX_SUCCESS;
  });
}

// ----------------------------------------------------------------------------- _mxtrt_heads

MXReturnValue ParseHeads(const Attributes& attributes, int* num_inputs, int* num_outputs) {
  return Guarded([&] {
    if (!ReadCount(attributes, "num", num_inputs)) return MX_FAIL;
    *num_outputs = *num_inputs;
    return MX_SUCCESS;
  });
}

MXReturnValue InferHeadsType(const Attributes&, std::vector<int>* in_types,
                             std::vector<int>* out_types) {
  return Guarded([&] {
    *out_types = *in_types;
    return MX_SUCCESS;
  });
}

MXReturnValue InferHeadsShape(const Attributes&, Shapes* in_shapes, Shapes* out_shapes) {
  return Guarded([&] {
    if (!AllSizesKnown(*in_shapes, "_mxtrt_heads")) return MX_FAIL;
    *out_shapes = *in_shapes;
    return MX_SUCCESS;
  });
}

class HeadsState : public Runnable {
 public:
  MXReturnValue Run(const std::vector<MxtrtTensor>& inputs, const std::vector<MxtrtTensor>& outputs,
                    void*) override {
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i].device_type != MXTRT_DEVICE_CPU) {
        return Fail("_mxtrt_heads copies arrays on the CPU only");
      }
      const size_t bytes = NumBytes(inputs[i]);
      if (bytes != NumBytes(outputs[i])) {
        return Fail("_mxtrt_heads got an input and an output of different sizes");
      }
      if (bytes != 0) std::memcpy(outputs[i].data, inputs[i].data, bytes);
    }
    return MX_SUCCESS;
  }
};

MXReturnValue CreateHeads(const Attributes&, const MXContext&, const Shapes&,
                          const std::vector<int>, CustomStatefulOp** state) {
  return Guarded([&] {
    *state = CustomStatefulOp::create<HeadsState>();
    return MX_SUCCESS;
  });
}

}  // namespace

REGISTER_OP(_mxtrt_engine)
    .setParseAttrs(ParseEngine)
    .setInferType(InferEngineType)
    .setInferShape(InferEngineShape)
    .setInferSType(InferDenseStorage)
    .setCreateOpState(CreateEngine, "cpu")
    .setCreateOpState(CreateEngine, "gpu");

REGISTER_OP(_mxtrt_heads)
    .setParseAttrs(ParseHeads)
    .setInferType(InferHeadsType)
    .setInferShape(InferHeadsShape)
    .setInferSType(InferDenseStorage)
    .setCreateOpState(CreateHeads, "cpu");

}  // namespace mxtrt

mxnet::ext::MXReturnValue initialize(int version) {
  if (version >= 10900 && version < 20000) return mxnet::ext::MX_SUCCESS;
  return mxtrt::Fail("mxtrt's operator needs MXNet 1.9, this is version number " +
                     std::to_string(version));
}

// Four of the C functions that MXNet looks up in an extension library, in place of the ones in
// MXNet's lib_api.cc (CMakeLists.txt renames those):
//
//   _opCallFStatefulCompute  lib_api.cc copies every shape and device name and throws for bool
//   _opCallInferShape        lib_api.cc takes an input of unknown rank for a scalar
//   _msgSize, _msgGet        lib_api.cc keeps every message for ever, shows all of them each time,
//                            and appends to the list without a lock

#include "boundary.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "bridge.h"
#include "mxnet/lib_api.h"

namespace mxtrt {
namespace {

// A fixed buffer and no std::string: MXNet may ask on a thread that is being torn down.
thread_local char last_sentence[4608] = "";

size_t BytesPerElement(int32_t dtype) {
  switch (dtype) {
    case 1:  // float64
    case 6:  // int64
      return 8;
    case 0:  // float32
    case 4:  // int32
      return 4;
    case 2:   // float16
    case 12:  // bfloat16
      return 2;
    default:  // uint8, int8, bool
      return 1;
  }
}

std::vector<MxtrtTensor> ViewArrays(int count, void** data, const int64_t** shapes,
                                    const int* ndims, const int* types, const char** devices,
                                    const int* device_ids) {
  std::vector<MxtrtTensor> tensors(count);
  for (int i = 0; i < count; ++i) {
    const int32_t device = devices[i][0] == 'g' ? MXTRT_DEVICE_GPU : MXTRT_DEVICE_CPU;
    tensors[i] = {data[i], shapes[i], ndims[i], types[i], device, device_ids[i]};
  }
  return tensors;
}

}  // namespace

mxnet::ext::MXReturnValue Fail(const std::string& sentence) {
  const size_t length = std::min(sentence.size(), sizeof(last_sentence) - 1);
  std::memcpy(last_sentence, sentence.data(), length);
  last_sentence[length] = '\0';
  return mxnet::ext::MX_FAIL;
}

mxnet::ext::MXReturnValue FailUnknownShape(int input, const std::string& key) {
  return Fail("the shape of input " + std::to_string(input) + " of the engine '" + key +
              "' is not known; pass its shape to bind/simple_bind/infer_shape");
}

size_t NumBytes(const MxtrtTensor& tensor) {
  size_t bytes = BytesPerElement(tensor.dtype);
  for (int i = 0; i < tensor.ndim; ++i) bytes *= static_cast<size_t>(tensor.shape[i]);
  return bytes;
}

mxnet::ext::MXReturnValue Runnable::Forward(std::vector<mxnet::ext::MXTensor>*,
                                            std::vector<mxnet::ext::MXTensor>*,
                                            const mxnet::ext::OpResource&) {
  return Fail("mxtrt's operators run through Runnable::Run");
}

}  // namespace mxtrt

// lib_api.cc's own function under the name that CMakeLists.txt gives it.
extern "C" int mxtrt_lib_api_infer_shape(mxnet::ext::inferShape_t infer, const char* const* keys,
                                         const char* const* values, int num_attributes,
                                         unsigned int** in_shapes, int* in_ndims, int num_inputs,
                                         unsigned int*** new_in_shapes, int** new_in_ndims,
                                         unsigned int*** out_shapes, int** out_ndims,
                                         int num_outputs);

MX_INT_RET _opCallInferShape(mxnet::ext::inferShape_t infer, const char* const* keys,
                             const char* const* values, int num_attributes,
                             unsigned int** in_shapes, int* in_ndims, int num_inputs,
                             unsigned int*** new_in_shapes, int** new_in_ndims,
                             unsigned int*** out_shapes, int** out_ndims, int num_outputs) {
  for (int i = 0; i < num_inputs; ++i) {
    if (in_ndims[i] >= 0) continue;
    std::string key = "_mxtrt_heads";
    for (int j = 0; j < num_attributes; ++j) {
      if (std::strcmp(keys[j], "key") == 0) key = values[j];
    }
    return mxtrt::FailUnknownShape(i, key);
  }
  return mxtrt_lib_api_infer_shape(infer, keys, values, num_attributes, in_shapes, in_ndims,
                                   num_inputs, new_in_shapes, new_in_ndims, out_shapes, out_ndims,
                                   num_outputs);
}

MX_INT_RET _opCallFStatefulCompute(
    int is_forward, void* state, const int64_t** in_shapes, int* in_ndims, void** in_data,
    int* in_types, size_t*, const char** in_devices, int* in_device_ids, int num_inputs,
    const int64_t** out_shapes, int* out_ndims, void** out_data, int* out_types, size_t*,
    const char** out_devices, int* out_device_ids, int num_outputs, mxnet::ext::xpu_malloc_t, void*,
    mxnet::ext::xpu_malloc_t, void*, void* stream, mxnet::ext::sparse_malloc_t, void*, int*, int*,
    void**, void**, void**, void**, int64_t*, int64_t*, int64_t*, int64_t*, void*, void*) {
  return mxtrt::Guarded([&] {
    if (!is_forward) {
      return mxtrt::Fail(
          "an optimised symbol has no gradient: train the original symbol and optimise the result");
    }
    const auto inputs = mxtrt::ViewArrays(num_inputs, in_data, in_shapes, in_ndims, in_types,
                                          in_devices, in_device_ids);
    const auto outputs = mxtrt::ViewArrays(num_outputs, out_data, out_shapes, out_ndims, out_types,
                                           out_devices, out_device_ids);
    auto* base = static_cast<mxnet::ext::CustomStatefulOp*>(state);
    return static_cast<mxtrt::Runnable*>(base)->Run(inputs, outputs, stream);
  });
}

MX_INT_RET _msgSize() { return mxtrt::last_sentence[0] != '\0' ? 1 : 0; }

MX_VOID_RET _msgGet(int, const char** message) { *message = mxtrt::last_sentence; }

// A library of operators as MXNet's users write them, for test_registry.py: scaled_sum adds its
// inputs and multiplies the sum by an attribute.
#include <string>
#include <unordered_map>
#include <vector>

#include "mxnet/lib_api.h"

using namespace mxnet::ext;  // NOLINT: as in MXNet's own examples

using Attributes = std::unordered_map<std::string, std::string>;

MXReturnValue Parse(const Attributes& attributes, int* inputs, int* outputs) {
  *inputs = 2;
  *outputs = 1;
  return MX_SUCCESS;
}

MXReturnValue InferType(const Attributes& attributes, std::vector<int>* inputs,
                        std::vector<int>* outputs) {
  (*inputs)[1] = (*inputs)[0];
  (*outputs)[0] = (*inputs)[0];
  return MX_SUCCESS;
}

MXReturnValue InferShape(const Attributes& attributes,
                         std::vector<std::vector<unsigned int>>* inputs,
                         std::vector<std::vector<unsigned int>>* outputs) {
  (*outputs)[0] = (*inputs)[0];
  return MX_SUCCESS;
}

MXReturnValue Forward(const Attributes& attributes, std::vector<MXTensor>* inputs,
                      std::vector<MXTensor>* outputs, const OpResource& resource) {
  const float scale = attributes.count("scale") ? std::stof(attributes.at("scale")) : 1.0f;
  const float* a = (*inputs)[0].data<float>();
  const float* b = (*inputs)[1].data<float>();
  float* sum = (*outputs)[0].data<float>();
  for (int64_t i = 0; i < (*outputs)[0].size(); ++i) sum[i] = scale * (a[i] + b[i]);
  return MX_SUCCESS;
}

REGISTER_OP(scaled_sum)
    .setForward(Forward, "cpu")
    .setParseAttrs(Parse)
    .setInferType(InferType)
    .setInferShape(InferShape);

MXReturnValue initialize(int version) { return version >= 10700 ? MX_SUCCESS : MX_FAIL; }

// What operator.cc and boundary.cc share: failing with a sentence, and operators that run on raw
// MXNet arrays.
#ifndef MXTRT_BOUNDARY_H_
#define MXTRT_BOUNDARY_H_

#include <exception>
#include <string>
#include <vector>

#include "bridge.h"
#include "mxnet/lib_api.h"

namespace mxtrt {

// Keeps the sentence for MXNet, which asks for it on the same thread and puts it into MXNetError.
mxnet::ext::MXReturnValue Fail(const std::string& sentence);

mxnet::ext::MXReturnValue FailUnknownShape(int input, const std::string& key);

// Runs `body`; no C++ exception crosses into MXNet, which may be built with another compiler.
template <typename Body>
mxnet::ext::MXReturnValue Guarded(const Body& body) {
  try {
    return body();
  } catch (const std::exception& error) {
    return Fail(std::string("mxtrt's operator failed: ") + error.what());
  }
}

size_t NumBytes(const MxtrtTensor& tensor);

// The state of an operator. MXNet owns it and destroys it through CustomStatefulOp.
class Runnable : public mxnet::ext::CustomStatefulOp {
 public:
  virtual mxnet::ext::MXReturnValue Run(const std::vector<MxtrtTensor>& inputs,
                                        const std::vector<MxtrtTensor>& outputs, void* stream) = 0;

  // Never called: boundary.cc calls Run in its place.
  mxnet::ext::MXReturnValue Forward(std::vector<mxnet::ext::MXTensor>*,
                                    std::vector<mxnet::ext::MXTensor>*,
                                    const mxnet::ext::OpResource&) override;
};

}  // namespace mxtrt

#endif  // MXTRT_BOUNDARY_H_

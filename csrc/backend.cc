// The graph pass "mxtrt": what MXNet runs for net.hybridize(backend="mxtrt"),
// net.optimize_for(x, backend="mxtrt") and Symbol.optimize_for("mxtrt").
//
// It hands the graph to the planner in Python and the optimised graph back. In place of
// _passCallGraphPass of lib_api.cc (CMakeLists.txt renames that one), whose reader of JSON does not
// know every graph: names with quotes or backslashes come out changed.

#include "boundary.h"
#include "bridge.h"
#include "mxnet/lib_api.h"
#include "table.h"

namespace mxtrt {
namespace {

mxnet::ext::MXReturnValue Unused(mxnet::ext::Graph*,
                                 const std::unordered_map<std::string, std::string>&) {
  return Fail("mxtrt's graph pass runs through _passCallGraphPass");
}

}  // namespace

REGISTER_PASS(mxtrt).setBody(Unused);

}  // namespace mxtrt

MX_INT_RET _passCallGraphPass(mxnet::ext::graphPass_t, const char* json, char** out_graph,
                              const char* const* opt_keys, const char* const* opt_vals,
                              int num_opts, const char*, const char* const*, int, void* const*,
                              const int64_t* const*, const int*, const int*, const size_t*,
                              const char* const*, const int*, const char* const*, int, void* const*,
                              const int64_t* const*, const int*, const int*, const size_t*,
                              const char* const*, const int*, mxnet::ext::nd_malloc_t,
                              const void*) {
  return mxtrt::Guarded([&] {
    const mxtrt::TableInUse table;
    if (table.get() == nullptr) {
      return mxtrt::Fail("mxtrt is detached from MXNet, because the interpreter is exiting");
    }
    mxtrt::ErrorText error;
    const int status = table.get()->optimize(json, num_opts, opt_keys, opt_vals, out_graph,
                                             error.text, sizeof(error.text));
    return status == 0 ? mxnet::ext::MX_SUCCESS : mxtrt::FailWith(error);
  });
}

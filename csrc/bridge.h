// The C table between MXNet's side (operator.cc, backend.cc) and whoever plans and runs the engines
// (_bridge.pyx).
#ifndef MXTRT_BRIDGE_H_
#define MXTRT_BRIDGE_H_

#include <stddef.h>
#include <stdint.h>

#define MXTRT_MAX_NDIM 32
#define MXTRT_DEVICE_CPU 1
#define MXTRT_DEVICE_GPU 2

#ifdef __cplusplus
extern "C" {
#endif

// An MXNet array for the length of one call: nothing here is owned.
typedef struct {
  void* data;            // may be NULL when the array has no elements
  const int64_t* shape;  // ndim numbers
  int32_t ndim;
  int32_t dtype;        // MXNet type flag: 0 float32, 1 float64, 2 float16, 3 uint8, 4 int32, ...
  int32_t device_type;  // MXTRT_DEVICE_CPU or MXTRT_DEVICE_GPU
  int32_t device_id;
} MxtrtTensor;

// Every function returns 0 for success. On failure it writes a NUL-terminated UTF-8 sentence into
// `error`, which holds `error_size` bytes. They are called from several threads at once.
typedef struct {
  // Writes output i's sizes to out_shapes[i * MXTRT_MAX_NDIM] and their number to out_ndims[i].
  int (*infer_shape)(const char* key, int num_inputs, const int32_t* in_ndims,
                     const int64_t* const* in_shapes, int num_outputs, int32_t* out_ndims,
                     int64_t* out_shapes, char* error, size_t error_size);
  // Type flags; -1 is unknown. Unknown input types are filled in where the engine implies them.
  int (*infer_type)(const char* key, int num_inputs, int32_t* in_types, int num_outputs,
                    int32_t* out_types, char* error, size_t error_size);
  // `stream` is MXNet's cudaStream_t for arrays on a GPU, NULL otherwise.
  int (*execute)(const char* key, int num_inputs, const MxtrtTensor* inputs, int num_outputs,
                 const MxtrtTensor* outputs, void* stream, char* error, size_t error_size);
  // Before the first engine runs on MXNet's arrays on a GPU. It may run operators itself.
  int (*prepare_gpu)(int device_id, char* error, size_t error_size);
  // Writes the optimised graph, MXNet's JSON as `graph` is, to memory from malloc: it is the
  // caller's. The options are those of optimize_for.
  int (*optimize)(const char* graph, int num_options, const char* const* names,
                  const char* const* values, char** optimized, char* error, size_t error_size);
} MxtrtTable;

// Installs the table, which must outlive its use; NULL detaches. Returns when no thread is inside
// the table it replaces any more, so the caller must not hold a lock that those threads need.
void mxtrt_set_table(const MxtrtTable* table);

#ifdef __cplusplus
}
#endif

#endif  // MXTRT_BRIDGE_H_

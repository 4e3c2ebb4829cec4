// Between MXNet's memory on the CPU and a GPU, through pinned memory.
//
// One core copies 6 to 10 GB per second, a fifth of what the bus carries: large arrays are copied
// by several threads, and what lies in pinned memory goes to the GPU while the rest is copied. An
// array that lies in pinned memory itself is not copied there.
#ifndef MXTRT_TRANSFER_H_
#define MXTRT_TRANSFER_H_

#include <cstddef>
#include <cstdint>

namespace mxtrt {

// Functions of NVIDIA's driver, by address: nothing is linked. Each returns a CUresult.
struct Driver {
  int (*copy_to_device)(uint64_t device, const void* host, size_t bytes, void* stream);
  int (*copy_to_host)(void* host, uint64_t device, size_t bytes, void* stream);
  int (*launch_graph)(void* graph, void* stream);
  int (*synchronize)(void* stream);
  int (*get_attribute)(void* value, int attribute, uint64_t pointer);
};

// One input or output. Without an array, what counts is in pinned memory already or stays there.
struct Piece {
  void* array;
  void* pinned;
  uint64_t device;
  size_t bytes;
};

// Copies arrays to pinned memory and enqueues the copies to the GPU, which may read an array until
// the stream has got there.
int Upload(const Driver& driver, const Piece* pieces, int count, void* stream);

// Enqueues the copies to pinned memory, waits for the stream and copies to the arrays.
int Download(const Driver& driver, const Piece* pieces, int count, void* stream);

}  // namespace mxtrt

#endif  // MXTRT_TRANSFER_H_

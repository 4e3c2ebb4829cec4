#include "table.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace mxtrt {
namespace {

std::atomic<const MxtrtTable*> installed_table{nullptr};
std::atomic<int> calls_inside{0};
thread_local int my_calls_inside = 0;

// A fork copies the count but not the threads that would bring it back to zero.
void ForgetCallsOfParentProcess() { calls_inside.store(my_calls_inside); }
const int fork_handler = pthread_atfork(nullptr, nullptr, ForgetCallsOfParentProcess);

}  // namespace

// The count goes up before the table is read, and mxtrt_set_table reads it after the table was
// replaced: one of the two sees the other.
TableInUse::TableInUse() {
  calls_inside.fetch_add(1);
  ++my_calls_inside;
  table_ = installed_table.load();
}

TableInUse::~TableInUse() {
  --my_calls_inside;
  calls_inside.fetch_sub(1);
}

mxnet::ext::MXReturnValue FailWith(const ErrorText& error) {
  return Fail(error.text[0] != '\0' ? error.text : "the engine failed without a message");
}

}  // namespace mxtrt

extern "C" void mxtrt_set_table(const MxtrtTable* table) {
  mxtrt::installed_table.store(table);
  while (mxtrt::calls_inside.load() > mxtrt::my_calls_inside) {
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  }
}

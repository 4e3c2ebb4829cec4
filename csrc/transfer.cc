#include "transfer.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace mxtrt {
namespace {

constexpr size_t kSmall = 128 << 10;  // bytes: less is copied wherever it lies
constexpr size_t kShared = 1 << 20;   // bytes: less is copied before other threads are awake
constexpr size_t kLarge = 2 << 20;    // bytes: more probably lie in memory than in the caches
constexpr size_t kMaxChunks = 256;
constexpr size_t kMinChunk = 64 << 10;
constexpr size_t kMinSend = 256 << 10;  // each copy to the GPU costs some microseconds
constexpr size_t kMinSendAlone = 128 << 10;
constexpr int kMemoryType = 2;        // CU_POINTER_ATTRIBUTE_MEMORY_TYPE
constexpr unsigned kHost = 1;         // CU_MEMORYTYPE_HOST
constexpr int kThreads = 4;           // fill the bus; more of them only wake up later
constexpr int kThreadsForLarge = 12;  // one core gets 4 to 6 GB per second from memory

void CopyBytes(char* to, const char* from, size_t bytes, bool streamed) {
#ifdef __SSE2__
  if (streamed && reinterpret_cast<uintptr_t>(to) % 16 == 0) {
    const size_t whole = bytes / 64 * 64;
    for (size_t at = 0; at < whole; at += 64) {
      for (size_t part = 0; part < 64; part += 16) {
        const auto* source = reinterpret_cast<const __m128i*>(from + at + part);
        _mm_stream_si128(reinterpret_cast<__m128i*>(to + at + part), _mm_loadu_si128(source));
      }
    }
    _mm_sfence();
    std::memcpy(to + whole, from + whole, bytes - whole);
    return;
  }
#endif
  (void)streamed;
  std::memcpy(to, from, bytes);
}

// How many threads copy so many bytes, the calling one among them.
int CopyThreads(size_t bytes) {
  static const int cores = [] {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  }();
  return std::min(cores, bytes < kShared ? 1 : bytes < kLarge ? kThreads : kThreadsForLarge);
}

// A copy in chunks, which any number of threads take one after another.
class Job {
 public:
  Job(void* to, const void* from, size_t bytes, bool streamed)
      : to_(static_cast<char*>(to)),
        from_(static_cast<const char*>(from)),
        bytes_(bytes),
        streamed_(streamed),
        max_helpers_(CopyThreads(bytes) - 1) {
    const size_t rounded = (bytes / kMaxChunks + kMinChunk) / kMinChunk * kMinChunk;
    chunk_ = std::max(kMinChunk, rounded);
    count_ = (bytes + chunk_ - 1) / chunk_;
    for (size_t i = 0; i < count_; ++i) done_[i].store(false, std::memory_order_relaxed);
  }

  // Copies the next chunk; false when none is left.
  bool CopyOne() {
    const size_t index = next_.fetch_add(1, std::memory_order_relaxed);
    if (index >= count_) return false;
    const size_t begin = index * chunk_;
    CopyBytes(to_ + begin, from_ + begin, std::min(chunk_, bytes_ - begin), streamed_);
    done_[index].store(true, std::memory_order_release);
    return true;
  }

  // Whether one more thread may help; the pool's lock is held.
  bool WantsHelp() const {
    return helpers < max_helpers_ && next_.load(std::memory_order_relaxed) < count_;
  }

  int MaxHelpers() const { return max_helpers_; }

  // How many bytes from the beginning are copied.
  size_t Ready() {
    while (ready_ < count_ && done_[ready_].load(std::memory_order_acquire)) ++ready_;
    return std::min(ready_ * chunk_, bytes_);
  }

  int helpers = 0;  // threads inside CopyOne; the pool's lock guards it

 private:
  char* to_;
  const char* from_;
  size_t bytes_, chunk_, count_;
  bool streamed_;
  int max_helpers_;
  size_t ready_ = 0;
  std::atomic<size_t> next_{0};
  std::atomic<bool> done_[kMaxChunks + 1];
};

// Threads that help with copies. Never destroyed: at exit they may still be waiting.
class Pool {
 public:
  // Threads do not survive a fork: the child starts its own.
  static Pool& Instance() {
    static std::mutex lock;
    static Pool* pool = nullptr;
    const std::lock_guard<std::mutex> guard(lock);
    if (pool == nullptr || pool->process_ != getpid()) pool = new Pool;
    return *pool;
  }

  void Add(Job* job) {
    {
      const std::lock_guard<std::mutex> guard(lock_);
      jobs_.push_back(job);
    }
    for (int i = 0; i < job->MaxHelpers(); ++i) wake_.notify_one();
  }

  // Returns when no thread works at the job any more.
  void Remove(Job* job) {
    std::unique_lock<std::mutex> guard(lock_);
    jobs_.erase(std::remove(jobs_.begin(), jobs_.end(), job), jobs_.end());
    left_.wait(guard, [job] { return job->helpers == 0; });
  }

 private:
  Pool() : process_(getpid()) {
    sigset_t all, before;  // signals are for the program's own threads
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      const int threads = CopyThreads(SIZE_MAX);
      for (int i = 1; i < threads; ++i) std::thread([this] { Help(); }).detach();
    } catch (const std::system_error&) {  // no more threads: those that are there do the work
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void Help() {
    std::unique_lock<std::mutex> guard(lock_);
    for (;;) {
      const auto found =
          std::find_if(jobs_.begin(), jobs_.end(), [](const Job* job) { return job->WantsHelp(); });
      if (found == jobs_.end()) {
        wake_.wait(guard);
        continue;
      }
      Job* job = *found;
      ++job->helpers;
      guard.unlock();
      while (job->CopyOne()) {
      }
      guard.lock();
      if (--job->helpers == 0) left_.notify_all();
    }
  }

  const pid_t process_;
  std::mutex lock_;
  std::condition_variable wake_, left_;
  std::vector<Job*> jobs_;
};

// Copies; `send(begin, end)` is called for what is copied, in order, and says 0 if that worked.
// Streamed copies stay out of the caches: for what a GPU reads and this processor does not.
template <typename Send>
int Copy(void* to, const void* from, size_t bytes, bool streamed, Send send) {
  if (CopyThreads(bytes) == 1) {
    const size_t step = std::max(kMinSendAlone, bytes / kMaxChunks / kMinChunk * kMinChunk);
    for (size_t begin = 0; begin < bytes; begin += step) {
      const size_t end = std::min(begin + step, bytes);
      CopyBytes(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin, end - begin,
                streamed);
      if (const int status = send(begin, end)) return status;
    }
    return 0;
  }
  Job job(to, from, bytes, streamed);
  Pool& pool = Pool::Instance();
  pool.Add(&job);
  size_t sent = 0;
  int status = 0;
  while (sent < bytes && status == 0) {
    if (!job.CopyOne()) std::this_thread::yield();  // the others have the last chunks
    const size_t ready = job.Ready();
    if (ready == bytes || ready >= sent + kMinSend) {
      status = send(sent, ready);
      sent = ready;
    }
  }
  while (job.CopyOne()) {  // after a failure nobody may read the caller's memory any more
  }
  pool.Remove(&job);
  return status;
}

// Whether the GPU reads and writes an array where it is. Small ones are not worth the question.
bool IsPinned(const Driver& driver, const Piece& piece) {
  if (piece.array == nullptr || piece.bytes < kSmall) return false;
  const auto first = reinterpret_cast<uint64_t>(piece.array);
  for (const uint64_t at : {first, first + piece.bytes - 1}) {
    unsigned type = 0;
    if (driver.get_attribute(&type, kMemoryType, at) != 0 || type != kHost) return false;
  }
  return true;
}

}  // namespace

int Upload(const Driver& driver, const Piece* pieces, int count, void* stream) {
  for (int i = 0; i < count; ++i) {
    const Piece& piece = pieces[i];
    const bool direct = IsPinned(driver, piece);
    char* pinned = static_cast<char*>(direct ? piece.array : piece.pinned);
    const auto send = [&](size_t begin, size_t end) {
      if (begin == end) return 0;
      return driver.copy_to_device(piece.device + begin, pinned + begin, end - begin, stream);
    };
    const int status = piece.array == nullptr || direct
                           ? send(0, piece.bytes)
                           : Copy(pinned, piece.array, piece.bytes, true, send);
    if (status) return status;
  }
  return 0;
}

int Download(const Driver& driver, const Piece* pieces, int count, void* stream) {
  for (int i = 0; i < count; ++i) {
    const Piece& piece = pieces[i];
    if (piece.bytes == 0) continue;
    void* host = IsPinned(driver, piece) ? piece.array : piece.pinned;
    const int status = driver.copy_to_host(host, piece.device, piece.bytes, stream);
    if (status) return status;
  }
  if (const int status = driver.synchronize(stream)) return status;
  for (int i = 0; i < count; ++i) {
    const Piece& piece = pieces[i];
    if (piece.array != nullptr && !IsPinned(driver, piece)) {
      Copy(piece.array, piece.pinned, piece.bytes, false, [](size_t, size_t) { return 0; });
    }
  }
  return 0;
}

}  // namespace mxtrt

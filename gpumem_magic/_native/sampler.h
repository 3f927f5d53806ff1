// The sampler: a thread that takes a row of every device and of the host each period, whatever holds the GIL. One per
// process, never destroyed.
//
// `lock_` guards everything here but what a run's own thread keeps. The tracker's ledger lock is taken inside it, so
// that a row and the extremes that it took belong together; nothing that takes the ledger's lock ever takes this one.
// NVML and the driver are asked while no lock is held.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "growth.h"
#include "history.h"
#include "tracker.h"

namespace gpumem {

class Sampler {
 public:
  static Sampler& instance();

  struct Device {
    uint8_t ordinal;
    std::string uuid;  // as CUDA tells it; empty when unknown
    bool operator==(const Device& other) const { return ordinal == other.ordinal && uuid == other.uuid; }
  };

  // Starts the history anew, at index 0, in `directory` (in memory when empty).
  void begin_recording(const std::string& directory);
  void end_recording();

  // Samples these devices from now on, the first time at once. While it does so already, only the interval changes.
  void start(std::vector<Device> devices, uint64_t interval_ns);
  // Ends the thread and waits for it, but not for ever: a driver in trouble may keep it. The rows stay.
  void stop();
  // True once there is a sample that began after this call did; false when that takes too long, or nothing samples.
  bool sample_now(double timeout_s);
  // What the frameworks counted; every row has it until the next report.
  void report_frameworks(uint8_t device, int64_t torch_allocated, int64_t torch_reserved, int64_t cupy_used);

  struct News {
    std::vector<HistoryRow> rows;  // samples since an index, by index, then device
    std::vector<HistoryRow> open;  // what is being made now, a row of each device that is sampled
    std::vector<HostRow> host;
    std::vector<HostRow> host_open;
    uint64_t next = 0;  // index of the next sample
  };
  News since(uint64_t index);
  // All levels; returns the index of the next sample.
  uint64_t copy(HistoryCopy& copy);
  uint64_t next_index() const { return next_.load(std::memory_order_acquire); }
  // The number of events and the next index, as soon as either differs from what is given, or at the end of the time.
  std::pair<uint64_t, uint64_t> wait_for_news(uint64_t events, uint64_t index, double timeout_s) const;
  // errno of the file that could not be had; 0 while all is well.
  int error();

 private:
  struct Run {
    std::vector<Device> devices;
    std::thread thread;
    // What follows is guarded by lock_.
    uint64_t interval_ns = 0;
    uint64_t due_ns = 0;
    bool stopping = false, ended = false;
    uint64_t begun = 0, done = 0;  // samples
    uint64_t wanted = 0;           // somebody waits until so many are done
  };
  struct Sample {
    std::vector<HistoryRow> rows;
    HostRow host;
    uint64_t births_and_deaths;  // when it was begun
  };
  struct Frameworks {
    int64_t torch_allocated = kUnknownBytes, torch_reserved = kUnknownBytes, cupy_used = kUnknownBytes;
  };
  class Sources;
  using Lock = std::unique_lock<std::mutex>;

  Sampler();
  void run(const std::shared_ptr<Run>& run);
  void sample_until_stopped(Run& run);
  bool begin_sample(Run& run);
  void keep(Run& run, Sample& sample);
  void explain(HistoryRow& row, const Tracker::Tracked& level, bool is_quiet);
  void open_history();
  bool wait_until(Lock& lock, pthread_cond_t& condition, uint64_t deadline_ns);
  std::vector<Tracker::Tracked> tracked(const std::vector<Device>& devices, bool restart, uint64_t& time_ns) const;
  static void stop_at_exit();

  static void before_fork();
  static void after_fork_parent();
  static void after_fork_child();

  std::mutex lock_;
  pthread_cond_t due_;   // a run's thread waits for it
  pthread_cond_t done_;  // a sample was done, or a run ended
  std::shared_ptr<Run> run_;
  std::string directory_;
  std::unique_ptr<History> history_;
  std::map<uint8_t, Frameworks> frameworks_;
  std::map<uint8_t, Growth> growths_;
  uint64_t last_end_ns_ = 0;
  std::atomic<uint64_t> next_{0};
};

}  // namespace gpumem

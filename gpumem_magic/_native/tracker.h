// The tracker: turns CUPTI's callbacks into events, keeps the ledger and the journal. One per process, never destroyed.
//
// Locks, all leaves: `tables_` guards the record log and the tables of stacks, libraries, streams, contexts and pools;
// `ledger_lock_` guards the ledger, the journal's writing end and the graphs. Neither is held while the other is taken
// or while anything outside this library is called. The callback takes no lock that Python code can hold.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "caller.h"
#include "cupti_api.h"
#include "driver_calls.h"
#include "graph_table.h"
#include "journal.h"
#include "ledger.h"
#include "record_log.h"
#include "series.h"
#include "stack_table.h"
#include "thread_state.h"

namespace gpumem {

struct Health {
  uint64_t callbacks;     // exits seen
  uint64_t sampled;       // of these, timed
  uint64_t sampled_ns;    // time spent in the timed ones
  uint64_t stacks;        // nodes in the stack table
  uint64_t codes;         // code objects seen
  uint64_t record_bytes;  // size of the record log
  uint64_t events;        // in the journal
  uint64_t lost_events;   // that found no room at all
  int64_t journal_error;  // errno, 0 while the disk takes it
  int64_t record_error;
  uint64_t subscribed;
  uint64_t on;
  uint64_t multiple;  // others may subscribe beside us
};

class Tracker {
 public:
  static Tracker& instance();

  // Subscribes through the CUPTI at `path`. Returns 0, a CUPTI result, or one of the codes in cupti_api.h.
  // `groups` is a bit set of Group. The caller may hold the GIL or not.
  int subscribe(const char* path, uint32_t groups);
  int unsubscribe();
  // While off, callbacks return at once and nothing is recorded.
  void turn(bool on);
  void set_depth(int depth) { depth_.store(depth); }
  void use_stacks(bool use) { use_stacks_.store(use); }

  // Starts a new recording with an empty ledger, in `directory` (in memory when empty).
  void begin_recording(const std::string& directory, uint64_t budget_bytes);
  void end_recording();

  // Spans. `payload` is what the recording keeps of it. Ids are never used twice in a process.
  uint32_t begin_span(uint32_t parent, const std::string& payload, bool foreground);
  void end_span(uint32_t id, uint32_t parent, const std::string& payload, bool foreground);
  void describe_span(uint32_t id, const std::string& payload);
  // The calling thread was started by span `id`: what it allocates belongs there.
  static void adopt_span(uint32_t id);
  static uint32_t current_span();
  void note(const std::string& payload);
  void mark(uint8_t kind);

  // True when a call that we make ourselves is reported to us.
  bool heartbeat();
  // Asks the driver about every live address and ends those it does not know. Returns how many it ended.
  uint64_t reconcile();

  struct Copy {
    Ledger::Tables tables;
    std::vector<SeriesRow> series;
    uint64_t time_ns;
  };
  // The live allocations are left out when they are not wanted: there may be millions.
  void copy(Copy& copy, bool allocations = true);
  // Live bytes of the device layer of one device: lowest and highest since the last restart, and now; all unknown (-1)
  // while calls are not seen.
  struct Tracked {
    uint8_t device;
    int64_t low, high, now;
    Ledger::Footprint footprint;
    uint64_t births_and_deaths;  // of all devices, so far: two looks with the same number saw the same memory
  };
  // Fills in the levels of the devices named there, all of one moment, and returns its time.
  uint64_t tracked(std::vector<Tracked>& levels, bool restart);
  uint64_t events();
  std::string read_records(uint64_t from);
  std::vector<SegmentInfo> segments();
  Health health();
  // Stack id of the calling thread, for the check against sys._getframe().
  uint32_t current_stack();
  void code_destroyed(const void* code);
  // Code objects may have died unseen: what is known of addresses counts no longer.
  void forget_code();
  const char* other_subscriber() const { return other_subscriber_; }

 private:
  Tracker() = default;
  static void callback(void* user, int domain, uint32_t id, const void* data);
  void on_driver_call(ThreadState& thread, uint32_t id, const CuptiCallbackData& data);
  void on_enter(ThreadState& thread, const DriverCall& call, const CuptiCallbackData& data);
  void on_exit(ThreadState& thread, const DriverCall& call, const CuptiCallbackData& data);
  void on_resource(ThreadState& thread, uint32_t id, const CuptiResourceData& data);
  void on_graph_call(ThreadState& thread, const DriverCall& call, DecodedCall& decoded);
  void launch_graph(const Event& launch);

  // Fills in who and where; everything but time and what the ledger knows.
  void attribute(ThreadState& thread, Event& event, uint32_t function);
  bool divert_captured(DecodedCall& decoded);
  void locate(ThreadState& thread, const CuptiCallbackData& data, DecodedCall& decoded);
  void record(Event& event);
  void record_death(ThreadState& thread, Event& event, uint32_t correlation_id);
  void append_locked(Event& event);

  uint32_t capture_stack(ThreadState& thread);
  uint32_t intern_from(ThreadState& thread, int count, int kept);
  uint8_t device_of(ThreadState& thread, CuContext context, uint32_t context_id);
  uint32_t stream_id(ThreadState& thread, uint64_t handle);
  uint8_t pool_device(uint64_t pool, uint8_t fallback);
  void enable_callbacks(uint32_t groups);
  bool is_known_to_driver(const AllocationRow& row, CuContext context) const;

  static void before_fork();
  static void after_fork_parent();
  static void after_fork_child();

  std::atomic<bool> on_{false};
  std::atomic<bool> use_stacks_{true};
  std::atomic<int> depth_{64};
  std::atomic<uint32_t> foreground_span_{0};
  std::atomic<uint32_t> next_span_{1};
  std::atomic<uint64_t> code_epoch_{1};
  std::atomic<int> captures_{0};
  std::atomic<bool> heard_{false};
  std::atomic<uint64_t> callbacks_{0}, sampled_{0}, sampled_ns_{0};

  CuptiApi cupti_{};
  DriverApi driver_{};
  void* subscriber_ = nullptr;
  bool multiple_ = false;
  char other_subscriber_[64] = "";

  std::mutex tables_;
  RecordLog log_;
  StackTable stacks_{log_};
  LibraryTable libraries_{log_, tables_};
  HashMap streams_{64};
  uint32_t stream_count_ = 0;
  struct Context {
    CuContext handle;
    uint8_t device;
  };
  std::unordered_map<uint32_t, Context> contexts_;
  std::unordered_map<uint64_t, uint8_t> pools_;

  std::mutex ledger_lock_;
  std::unique_ptr<Ledger> ledger_ = std::make_unique<Ledger>();
  std::unique_ptr<Journal> journal_;
  Series series_;
  GraphTable graphs_;
};

}  // namespace gpumem

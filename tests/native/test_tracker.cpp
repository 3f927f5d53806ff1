// The tracker on the simulated driver, with everything at once: many threads, stacks that change, snapshots, spans,
// switching, re-subscribing, forks. What the threads themselves know to be live is the truth.
#include <sys/wait.h>

#include <map>
#include <thread>

#include "driver.h"
#include "replay.h"
#include "tables_equal.h"
#include "tracker.h"
#include "walker_stub.h"

namespace {

using namespace gpumem;

constexpr uint64_t kRoomy = 1ull << 40;
constexpr uint32_t kAllGroups = 7;
constexpr int kThreads = 6;
constexpr size_t kMiB = 1 << 20;
constexpr size_t kPhysicalBytes = 2 * kMiB;

const test::Driver& driver() {
  static const test::Driver driver(64ull << 30);
  return driver;
}

Tracker& tracker() { return Tracker::instance(); }

Ledger::Tables live_tables() {
  Tracker::Copy copy;
  tracker().copy(copy);
  return std::move(copy.tables);
}

// A fresh recording with the tracker on; off and closed again at the end.
class Recording {
 public:
  explicit Recording(const std::string& directory = "") {
    driver();
    CHECK_EQ(tracker().subscribe(test::Driver::cupti(), kAllGroups), 0);
    tracker().begin_recording(directory, kRoomy);
    tracker().turn(true);
  }
  ~Recording() {
    CHECK_EQ(tracker().unsubscribe(), 0);
    tracker().end_recording();
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
};

// Memory that is live, in the hands of whichever thread takes it next: most is freed by another than made it.
class Shared {
 public:
  struct Block {
    test::Pointer address;
    size_t size;
    bool async;
  };

  void put(Block block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    blocks_.push_back(block);
  }
  bool take(test::Random& random, Block& block) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (blocks_.empty()) return false;
    std::swap(blocks_[test::below(random, blocks_.size())], blocks_.back());
    block = blocks_.back();
    blocks_.pop_back();
    return true;
  }
  const std::vector<Block>& all() const { return blocks_; }
  size_t size() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return blocks_.size();
  }

 private:
  std::mutex mutex_;
  std::vector<Block> blocks_;
};

// What one thread does. Function names say how much they allocate, so that a wrong stack shows.
class Worker {
 public:
  Worker(Shared& shared, uint64_t seed) : shared_(shared), random_(seed), outer_(test::make_code("worker")) {
    driver().use_primary();
    CHECK_EQ(driver().stream_create(&stream_, 0), 0);
    CHECK_EQ(driver().reserve(&reserved_, 8 * kPhysicalBytes, 0, 0, 0), 0);
  }

  void step() {
    const test::Calling frame(outer_, static_cast<int32_t>(test::below(random_, 3)));
    switch (test::below(random_, 12)) {
      case 0:
        virtual_memory();
        break;
      case 1:
        fail_to_free();
        break;
      case 2:
        graph();
        break;
      case 3: {
        const uint32_t span = tracker().begin_span(0, R"({"label": "step"})", false);
        allocate();
        tracker().end_span(span, 0, R"({"label": "step"})", false);
        break;
      }
      default:
        if (shared_.size() < 200 && test::one_in(random_, 2)) {
          allocate();
        } else {
          release();
        }
    }
  }

  void clean_up() {
    while (!mapped_.empty()) unmap_last();
  }

  int failures() const { return failures_; }

 private:
  void allocate() {
    Shared::Block block{};
    block.async = test::one_in(random_, 2);
    block.size = 4096 * (1 + test::below(random_, 64));
    const test::Code* code = test::make_code("alloc_" + std::to_string(block.size));
    {
      const test::Calling deeper(outer_, 7);
      const test::Calling frame(code, 1);
      const int status = block.async ? driver().alloc_async(&block.address, block.size, stream_)
                                     : driver().alloc(&block.address, block.size);
      CHECK_EQ(status, 0);
    }
    test::drop_code(code);  // its address goes to the next function, on whatever thread
    shared_.put(block);
  }

  void release() {
    Shared::Block block{};
    if (!shared_.take(random_, block)) return;
    CHECK_EQ(block.async ? driver().free_async(block.address, stream_) : driver().free(block.address), 0);
  }

  void fail_to_free() {
    CHECK(driver().free(0x123) != 0);
    ++failures_;
  }

  void virtual_memory() {
    if (mapped_.size() == 8 || (!mapped_.empty() && test::one_in(random_, 2))) {
      unmap_last();
      return;
    }
    const test::PhysicalProp prop{1, 0, {1, 0}, nullptr, {}};
    unsigned long long handle = 0;
    CHECK_EQ(driver().create(&handle, kPhysicalBytes, &prop, 0), 0);
    CHECK_EQ(driver().map(reserved_ + mapped_.size() * kPhysicalBytes, kPhysicalBytes, 0, handle, 0), 0);
    const bool early = test::one_in(random_, 2);
    if (early) CHECK_EQ(driver().release(handle), 0);
    mapped_.push_back(early ? 0 : handle);
  }

  void unmap_last() {
    const unsigned long long handle = mapped_.back();
    mapped_.pop_back();
    CHECK_EQ(driver().unmap(reserved_ + mapped_.size() * kPhysicalBytes, kPhysicalBytes), 0);
    if (handle != 0) CHECK_EQ(driver().release(handle), 0);
  }

  // Captures one allocation that outlives the graph's launch and one that does not.
  void graph() {
    constexpr int kThreadLocal = 1;
    test::Handle graph = nullptr;
    test::Handle executable = nullptr;
    test::Pointer kept = 0;
    test::Pointer inner = 0;
    CHECK_EQ(driver().begin_capture(stream_, kThreadLocal), 0);
    CHECK_EQ(driver().alloc_async(&kept, 4096, stream_), 0);
    CHECK_EQ(driver().alloc_async(&inner, 8192, stream_), 0);
    CHECK_EQ(driver().free_async(inner, stream_), 0);
    CHECK_EQ(driver().end_capture(stream_, &graph), 0);
    CHECK_EQ(driver().instantiate(&executable, graph, 0), 0);
    for (uint64_t launches = test::below(random_, 3); launches > 0; --launches) {
      CHECK_EQ(driver().launch(executable, stream_), 0);
      CHECK_EQ(driver().free_async(kept, stream_), 0);
    }
    CHECK_EQ(driver().destroy_exec(executable), 0);
    CHECK_EQ(driver().destroy_graph(graph), 0);
  }

  Shared& shared_;
  test::Random random_;
  const test::Code* outer_;
  test::Handle stream_ = nullptr;
  test::Pointer reserved_ = 0;
  std::vector<unsigned long long> mapped_;
  int failures_ = 0;
};

// Runs `kThreads` workers for `steps` each, and `meanwhile` on this thread until it says that it is done.
int run_workers(Shared& shared, int steps, const std::function<void(const std::atomic<int>&)>& meanwhile) {
  std::atomic<int> running{kThreads};
  std::atomic<int> failures{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      Worker worker(shared, static_cast<uint64_t>(i));
      for (int step = 0; step < steps; ++step) worker.step();
      worker.clean_up();
      failures += worker.failures();
      --running;
    });
  }
  meanwhile(running);
  for (std::thread& thread : threads) thread.join();
  return failures;
}

// Innermost function of each stack, from the records alone, as another process would read them.
std::map<uint32_t, std::string> functions_by_stack() {
  std::map<uint32_t, std::string> codes, stacks;
  const std::string records = tracker().read_records(0);
  for (size_t at = 0; at < records.size();) {
    RecordHeader header;
    std::memcpy(&header, records.data() + at, sizeof header);
    const char* payload = records.data() + at + sizeof header;
    uint32_t words[5] = {};
    std::memcpy(words, payload, std::min<size_t>(sizeof words, header.length));
    if (header.type == kCodeRecord) codes[words[0]] = std::string(payload + sizeof words + words[2], words[3]);
    if (header.type == kNodeRecord) stacks[words[0]] = codes.at(words[2]);
    at += sizeof header + ((header.length + 3) & ~3u);
  }
  return stacks;
}

void check_live_set(const Shared& shared, const Ledger::Tables& tables) {
  std::map<uint64_t, uint64_t> expected, found;
  for (const auto& block : shared.all()) expected[block.address] = block.size;
  for (const AllocationRow& row : tables.allocations) found[row.address] = row.size;
  CHECK_EQ(found.size(), tables.allocations.size());
  CHECK_EQ(found.size(), expected.size());
  CHECK(found == expected);
}

void check_stacks(const Ledger::Tables& tables) {
  const auto functions = functions_by_stack();
  size_t checked = 0;
  for (const SiteRow& site : tables.sites) {
    if (site.kind != kAlloc && site.kind != kAllocAsync) continue;
    const std::string& function = functions.at(site.stack);
    CHECK_EQ(function.rfind("alloc_", 0), 0u);
    CHECK_EQ(site.allocated_bytes, site.allocated_count * std::stoull(function.substr(6)));
    ++checked;
  }
  CHECK(checked > 10);
}

void drain(const Shared& shared) {
  for (const auto& block : shared.all()) {
    CHECK_EQ(block.async ? driver().free_async(block.address, nullptr) : driver().free(block.address), 0);
  }
}

void exact_under_load() {
  const test::Directory directory;
  Ledger::Tables tables;
  uint64_t failures = 0;
  {
    const Recording recording(directory.path());
    Shared shared;
    failures = static_cast<uint64_t>(run_workers(shared, 15000, [](const std::atomic<int>& running) {
      uint64_t events = 0;
      while (running > 0) {
        const Ledger::Tables now = live_tables();
        test::check_consistent(now);
        CHECK(now.counters[kEvents] >= events);
        events = now.counters[kEvents];
        tracker().read_records(0);
        tracker().segments();
        CHECK_EQ(tracker().health().lost_events, 0u);
      }
    }));
    tables = live_tables();
    check_live_set(shared, tables);
    check_stacks(tables);
    std::printf("    %lu events, %lu frees that returned late\n", tables.counters[kEvents],
                tables.counters[kDeferredFrees]);
    CHECK_EQ(tables.counters[kFailures], failures);
    CHECK_EQ(tables.counters[kUnknownFrees], 0u);
    CHECK_EQ(tables.counters[kMissedFrees], 0u);
    CHECK_EQ(tables.counters[kUnknownMaps], 0u);
    tracker().turn(false);
    drain(shared);
  }
  const Replay replay = replay_recording(directory.files("events-"), "");
  CHECK(replay.warnings.empty());
  test::check_same(replay.tables, tables);  // the recording on disk says the same
}

void switching_under_load() {
  Shared shared;
  {
    const Recording recording;
    run_workers(shared, 8000, [](const std::atomic<int>& running) {
      test::Random random(1);
      while (running > 0) {
        switch (test::below(random, 6)) {
          case 0:
            tracker().turn(false);
            tracker().turn(true);
            break;
          case 1:
            CHECK_EQ(tracker().unsubscribe(), 0);
            CHECK_EQ(tracker().subscribe(test::Driver::cupti(), kAllGroups), 0);
            tracker().turn(true);
            break;
          case 2:
            CHECK(tracker().heartbeat());
            break;
          case 3:
            tracker().set_depth(1 + static_cast<int>(test::below(random, 200)));
            break;
          case 4:
            tracker().mark(kGapBegin);
            tracker().note("{}");
            tracker().reconcile();
            break;
          default:
            if (test::one_in(random, 8)) tracker().begin_recording("", kRoomy);
        }
        test::check_consistent(live_tables());
      }
    });
    tracker().set_depth(64);
    // Births in the gaps were missed, but asking the driver ends what died in them.
    tracker().reconcile();
    std::map<uint64_t, uint64_t> alive;
    for (const auto& block : shared.all()) alive[block.address] = block.size;
    for (const AllocationRow& row : live_tables().allocations) {
      if (space_of(row.kind) != kAddressSpace) continue;
      const auto known = alive.find(row.address);
      CHECK(known != alive.end());
      CHECK(known->second >= row.size);
    }
    tracker().turn(false);
    drain(shared);
  }
  CHECK(!tracker().heartbeat());
}

void forks_under_load() {
  const test::Directory directory;
  const Recording recording(directory.path());
  Shared shared;
  run_workers(shared, 6000, [&](const std::atomic<int>& running) {
    int forks = 0;
    while (running > 0 && forks < 30) {
      ++forks;
      const int status = test::in_child([&] {
        test::limit_time(30);
        CHECK_EQ(tracker().health().on, 0u);
        // AddressSanitizer's own allocator is not made for this: a thread that is forked away from may hold its lock.
        if (test::kAddressSanitizer) return;
        test::check_consistent(live_tables());
        if (test::kThreadSanitizer) return;
        // A recording of the child's own, in its own directory; the parent's files stay as they are.
        const test::Directory own;
        tracker().begin_recording(own.path(), kRoomy);
        const uint32_t span = tracker().begin_span(0, "{}", true);
        tracker().end_span(span, 0, "{}", true);
        CHECK_EQ(tracker().health().events, 2u);
        tracker().end_recording();
        const Replay replay = replay_recording(own.files("events-"), "");
        CHECK(replay.warnings.empty());
        CHECK_EQ(replay.tables.counters[kEvents], 2u);
        CHECK_EQ(replay.tables.spans.size(), 1u);
      });
      CHECK(WIFEXITED(status));
      CHECK_EQ(WEXITSTATUS(status), 0);
    }
    CHECK(forks > 0);
  });
  const Ledger::Tables tables = live_tables();
  check_live_set(shared, tables);
  CHECK_EQ(tables.counters[kUnknownFrees], 0u);
  CHECK_EQ(tables.counters[kMissedFrees], 0u);
  test::check_consistent(tables);
  tracker().turn(false);
  drain(shared);
}

void nothing_is_recorded_while_off() {
  const Recording recording;
  tracker().turn(false);
  test::Handle context = nullptr;
  test::Pointer pointer = 0;
  CHECK_EQ(driver().context_create(&context, 0, 0), 0);
  CHECK_EQ(driver().alloc(&pointer, 4096), 0);
  CHECK_EQ(driver().context_destroy(context), 0);
  driver().use_primary();
  CHECK(tracker().heartbeat());
  CHECK_EQ(tracker().health().events, 0u);
}

void a_context_takes_its_memory_along() {
  const Recording recording;
  test::Handle context = nullptr;
  test::Pointer pointer = 0;
  CHECK_EQ(driver().context_create(&context, 0, 0), 0);
  CHECK_EQ(driver().alloc(&pointer, 3 * kMiB), 0);
  CHECK_EQ(live_tables().allocations.size(), 1u);
  CHECK_EQ(driver().context_destroy(context), 0);
  driver().use_primary();
  const Ledger::Tables tables = live_tables();
  CHECK(tables.allocations.empty());
  CHECK_EQ(tables.counters[kContextDeaths], 1u);
}

// What a graph held that was destroyed while nobody looked must not come back with the next graph of that handle.
void a_graph_destroyed_in_a_gap() {
  const Recording recording;
  const auto graph_create = reinterpret_cast<int (*)(test::Handle*, unsigned)>(dlsym(RTLD_DEFAULT, "cuGraphCreate"));
  CHECK(graph_create != nullptr);
  test::Handle stream = nullptr;
  CHECK_EQ(driver().stream_create(&stream, 0), 0);
  std::vector<test::Handle> graphs(50);
  for (test::Handle& graph : graphs) {
    test::Pointer pointer = 0;
    CHECK_EQ(driver().begin_capture(stream, 1), 0);
    CHECK_EQ(driver().alloc_async(&pointer, 4096, stream), 0);
    CHECK_EQ(driver().end_capture(stream, &graph), 0);
  }
  tracker().turn(false);
  for (const test::Handle graph : graphs) CHECK_EQ(driver().destroy_graph(graph), 0);
  tracker().turn(true);
  size_t reused = 0;
  for (int i = 0; i < 50; ++i) {
    test::Handle graph = nullptr;
    test::Handle executable = nullptr;
    CHECK_EQ(graph_create(&graph, 0), 0);
    reused += static_cast<size_t>(std::count(graphs.begin(), graphs.end(), graph));
    CHECK_EQ(driver().instantiate(&executable, graph, 0), 0);
    CHECK_EQ(driver().launch(executable, stream), 0);
  }
#if !defined(__SANITIZE_ADDRESS__)  // which keeps freed memory from being handed out again
  CHECK(reused > 0);                // or this test shows nothing
#endif
  CHECK(live_tables().allocations.empty());
}

void spans_of_a_program_without_end() {
  const Recording recording;
  std::vector<uint32_t> spans;
  for (int i = 0; i < 100; ++i) spans.push_back(tracker().begin_span(spans.empty() ? 0 : spans.back(), "{}", true));
  CHECK_EQ(live_tables().counters[kSpanOverflow], 36u);
  for (auto span = spans.rbegin(); span != spans.rend(); ++span) tracker().end_span(*span, 0, "{}", true);
  CHECK_EQ(live_tables().spans.size(), 100u);
  for (const SpanRow& row : live_tables().spans) CHECK(row.end_ns != 0);
  const std::string huge(2 << 20, 'x');
  tracker().end_span(tracker().begin_span(0, huge, true), 0, huge, true);  // too large to keep, not to survive
  tracker().note(huge);
}

void deep_stacks_are_cut_at_the_limit() {
  const Recording recording;
  std::vector<std::unique_ptr<test::Calling>> calls;
  const test::Code* code = test::make_code("recursive");
  tracker().set_depth(100000);  // more than a thread keeps
  for (int i = 0; i < 3000; ++i) {
    calls.push_back(std::make_unique<test::Calling>(code, i % 5));
    CHECK(tracker().current_stack() != 0);
  }
  while (calls.size() > 1) {
    calls.pop_back();
    CHECK(tracker().current_stack() != 0);
  }
  calls.clear();
  CHECK_EQ(tracker().current_stack(), 0u);
  tracker().set_depth(64);
}

}  // namespace

int main() {
  test::limit_time(300);
  RUN(nothing_is_recorded_while_off);
  RUN(a_context_takes_its_memory_along);
  RUN(a_graph_destroyed_in_a_gap);
  RUN(spans_of_a_program_without_end);
  RUN(deep_stacks_are_cut_at_the_limit);
  RUN(exact_under_load);
  RUN(switching_under_load);
  RUN(forks_under_load);
}

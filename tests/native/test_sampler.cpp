// The sampler on the simulated driver, with everything at once; and what it makes of an NVML that answers in odd ways.
#include <cmath>
#include <thread>

#include "driver.h"
#include "nvml_api.h"
#include "sampler.h"
#include "tracker.h"

namespace {

using namespace gpumem;

constexpr uint64_t kRoomy = 1ull << 40;
constexpr uint32_t kAllGroups = 7;
constexpr size_t kMiB = 1 << 20;
constexpr uint64_t kInterval = 10000000;
constexpr double kPatience = 30;

const test::Driver& driver() {
  static const test::Driver driver(64ull << 30);
  return driver;
}

Sampler& sampler() { return Sampler::instance(); }
Tracker& tracker() { return Tracker::instance(); }

int samplers() {
  int found = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "comm");
    std::string name;
    std::getline(file, name);
    found += name == "gpumem-sampler";
  }
  return found;
}

class Recording {
 public:
  explicit Recording(const std::string& directory = "") {
    driver();
    CHECK_EQ(tracker().subscribe(test::Driver::cupti(), kAllGroups), 0);
    tracker().begin_recording(directory, kRoomy);
    sampler().begin_recording(directory);
    tracker().turn(true);
  }
  ~Recording() {
    sampler().stop();
    CHECK_EQ(tracker().unsubscribe(), 0);
    tracker().end_recording();
    sampler().end_recording();
  }
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;
};

test::Pointer allocate(size_t bytes) {
  test::Pointer pointer = 0;
  CHECK_EQ(driver().alloc(&pointer, bytes), 0);
  return pointer;
}

// ---- NVML -----------------------------------------------------------------------------------------------------------

std::vector<std::string> asked;
std::vector<NvmlProcess> listed;
int refused = 0;  // the status that everything but the list answers with

int fine() { return 0; }
int find_mig(const char* uuid, NvmlDevice* device) {
  asked.emplace_back(uuid);
  static int instance = 0;
  *device = &instance;
  return std::string(uuid).rfind("MIG-", 0) == 0 ? 0 : 6;
}
int first_version(NvmlDevice, NvmlMemory* memory) {
  *memory = NvmlMemory{100, 64, 36};
  return refused;
}
int second_version(NvmlDevice, NvmlMemory2* memory) {
  CHECK_EQ(memory->version, 0x2000028u);
  *memory = NvmlMemory2{memory->version, 100, 6, 64, 30};
  return refused;
}
int rates(NvmlDevice, NvmlUtilization* utilization) {
  utilization->gpu = 42;
  return refused;
}
int odd_rates(NvmlDevice, NvmlUtilization* utilization) {
  utilization->gpu = 0xffffffff;
  return 0;
}
int list(NvmlDevice, unsigned* count, NvmlProcess* processes) {
  const unsigned room = *count;
  *count = static_cast<unsigned>(listed.size());
  if (*count > room) return kNvmlInsufficientSize;
  std::copy(listed.begin(), listed.end(), processes);
  return 0;
}

NvmlApi whole_api() { return {fine, fine, find_mig, first_version, second_version, rates, list}; }
int device_token;
const NvmlDevice kDevice = &device_token;

void nvml_tells_used_and_reserved_apart_where_it_can() {
  refused = 0;
  Nvml nvml(whole_api());
  CHECK_EQ(nvml.memory(kDevice).used, 30);
  CHECK_EQ(nvml.memory(kDevice).reserved, 6);
  CHECK_EQ(nvml.utilization(kDevice), 42.0f);
  NvmlApi old = whole_api();
  old.memory2 = nullptr;
  CHECK_EQ(Nvml(old).memory(kDevice).used, 36);
  CHECK_EQ(Nvml(old).memory(kDevice).reserved, kUnknownBytes);
}

void what_nvml_refuses_is_unknown() {
  refused = 3;
  listed = {{1, 50, 0, 0}};
  Nvml nvml(whole_api());
  NvmlApi closed = whole_api();
  closed.init = [] { return 999; };
  Nvml none(closed);
  Nvml bare(NvmlApi{fine, fine, find_mig, nullptr, nullptr, nullptr, nullptr});
  for (Nvml* each : {&nvml, &bare}) {
    CHECK_EQ(each->memory(kDevice).used, kUnknownBytes);
    CHECK_EQ(each->memory(kDevice).reserved, kUnknownBytes);
    CHECK(std::isnan(each->utilization(kDevice)));
    CHECK_EQ(each->process_bytes(kDevice, 42), kUnknownBytes);
  }
  CHECK(none.find("MIG-1") == nullptr);
  CHECK_EQ(nvml.memory(nullptr).used, kUnknownBytes);
  CHECK_EQ(nvml.process_bytes(nullptr, 1), kUnknownBytes);
  NvmlApi odd = whole_api();
  odd.utilization = odd_rates;
  CHECK(std::isnan(Nvml(odd).utilization(kDevice)));
  refused = 0;
}

void an_absent_process_is_unknown_and_not_empty() {
  Nvml nvml(whole_api());
  const auto bytes = [&](std::vector<NvmlProcess> processes) {
    listed = std::move(processes);
    return nvml.process_bytes(kDevice, 42);
  };
  CHECK_EQ(bytes({}), kUnknownBytes);
  CHECK_EQ(bytes({{1, 50, 0, 0}}), kUnknownBytes);
  CHECK_EQ(bytes({{42, kNvmlNotAvailable, 0, 0}}), kUnknownBytes);
  CHECK_EQ(bytes({{42, 1ull << 63, 0, 0}}), kUnknownBytes);
  CHECK_EQ(bytes({{1, 50, 0, 0}, {42, 7, 0, 0}}), 7);
  CHECK_EQ(bytes({{42, 0, 0, 0}}), 0);
  CHECK_EQ(bytes({{42, 7, 0, 0}, {42, 8, 1, 0}}), 15);
  std::vector<NvmlProcess> many(1000, NvmlProcess{1, 1, 0, 0});
  many.back() = {42, 9, 0, 0};
  CHECK_EQ(bytes(many), 9);
}

void a_mig_instance_is_found_by_its_own_name() {
  Nvml nvml(whole_api());
  asked.clear();
  CHECK(nvml.find("GPU-1") != nullptr);
  CHECK_EQ(asked.size(), 2u);
  CHECK(asked[0] == "GPU-1" && asked[1] == "MIG-1");
  CHECK(nvml.find("") == nullptr);
  CHECK_EQ(asked.size(), 2u);
}

// ---- the thread -----------------------------------------------------------------------------------------------------

void rows_have_what_the_ledger_has() {
  const Recording recording;
  sampler().start({{0, ""}}, kInterval);
  CHECK(sampler().sample_now(kPatience));
  const test::Pointer kept = allocate(64 * kMiB);
  CHECK_EQ(driver().free(allocate(128 * kMiB)), 0);
  const Sampler::News now = sampler().since(UINT64_MAX);
  CHECK(now.rows.empty());
  CHECK_EQ(now.open.size(), 1u);
  CHECK_EQ(now.open[0].tracked_bytes, static_cast<int64_t>(64 * kMiB));
  CHECK(sampler().sample_now(kPatience));
  const Sampler::News news = sampler().since(0);
  int64_t highest = 0;
  for (size_t i = 0; i < news.rows.size(); ++i) {
    const HistoryRow& row = news.rows[i];
    CHECK_EQ(row.index, i);
    CHECK(row.tracked_min <= row.tracked_bytes && row.tracked_bytes <= row.tracked_max);
    if (i > 0) CHECK_EQ(row.begin_ns, news.rows[i - 1].end_ns);
    highest = std::max(highest, row.tracked_max);
  }
  CHECK_EQ(highest, static_cast<int64_t>(192 * kMiB));
  CHECK_EQ(news.rows.back().tracked_bytes, static_cast<int64_t>(64 * kMiB));
  CHECK(news.host.back().rss_bytes > 0);
  sampler().stop();  // what happens until it starts again is in the row after
  CHECK_EQ(driver().free(kept), 0);
  const test::Pointer again = allocate(32 * kMiB);
  sampler().start({{0, ""}}, kInterval);
  CHECK(sampler().sample_now(kPatience));
  const HistoryRow row = sampler().since(news.next).rows[0];
  CHECK_EQ(row.begin_ns, news.rows.back().end_ns);
  CHECK_EQ(row.tracked_min, 0);
  CHECK_EQ(row.tracked_max, static_cast<int64_t>(64 * kMiB));
  CHECK_EQ(row.tracked_bytes, static_cast<int64_t>(32 * kMiB));
  CHECK_EQ(driver().free(again), 0);
}

// From here on the process has the simulated NVML. Returns the UUID of its device.
std::string load_nvml() {
  void* library = dlopen(SIMULATOR_LIBRARIES "/libnvidia-ml.so.1", RTLD_NOW | RTLD_GLOBAL);
  CHECK(library != nullptr);
  NvmlApi api{};
  CHECK(api.load());
  const Nvml nvml(api);
  NvmlDevice device = nullptr;
  char uuid[96] = "";
  const auto by_index =
      reinterpret_cast<int (*)(unsigned, NvmlDevice*)>(dlsym(library, "nvmlDeviceGetHandleByIndex_v2"));
  const auto get_uuid = reinterpret_cast<int (*)(NvmlDevice, char*, unsigned)>(dlsym(library, "nvmlDeviceGetUUID"));
  CHECK_EQ(by_index(0, &device), 0);
  CHECK_EQ(get_uuid(device, uuid, sizeof uuid), 0);
  return uuid;
}

void the_driver_is_asked_only_where_nvml_does_not_tell() {
  const Recording recording;
  sampler().start({{0, ""}}, kInterval);
  CHECK(sampler().sample_now(kPatience));
  const HistoryRow blind = sampler().since(0).rows.back();
  CHECK_EQ(blind.used_bytes, kUnknownBytes);
  CHECK_EQ(blind.process_bytes, kUnknownBytes);
  CHECK(blind.driver_used_bytes > 0);
  CHECK(std::isnan(blind.utilization));
  sampler().start({{0, load_nvml()}}, kInterval);
  CHECK(sampler().sample_now(kPatience));
  const HistoryRow row = sampler().since(0).rows.back();
  CHECK_EQ(row.used_bytes, blind.driver_used_bytes);
  CHECK_EQ(row.process_bytes, row.used_bytes);
  CHECK_EQ(row.process_max, row.used_bytes);
  CHECK(row.reserved_bytes > 0);
  CHECK_EQ(row.driver_used_bytes, kUnknownBytes);
  CHECK_EQ(row.utilization, 0.0f);
  CHECK_EQ(row.known, 1u);
}

void frameworks_are_in_the_rows_after_their_report() {
  const Recording recording;
  sampler().report_frameworks(0, 1, 2, 3);  // nobody samples: it is for nobody
  sampler().start({{0, ""}}, kInterval);
  CHECK(sampler().sample_now(kPatience));
  CHECK_EQ(sampler().since(0).rows.back().torch_allocated_bytes, kUnknownBytes);
  sampler().report_frameworks(0, 10, 20, 30);
  CHECK(sampler().sample_now(kPatience));
  const HistoryRow row = sampler().since(0).rows.back();
  CHECK_EQ(row.torch_allocated_bytes, 10);
  CHECK_EQ(row.torch_reserved_bytes, 20);
  CHECK_EQ(row.cupy_used_bytes, 30);
}

void starting_again_changes_the_interval_only() {
  const Recording recording;
  sampler().start({{0, ""}}, 1000000000);
  CHECK(sampler().sample_now(kPatience));
  CHECK_EQ(samplers(), 1);
  const uint64_t begin = sampler().next_index();
  sampler().start({{0, ""}}, kInterval);
  CHECK_EQ(samplers(), 1);
  while (sampler().next_index() < begin + 20) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  sampler().start({{0, ""}, {1, ""}}, kInterval);
  CHECK(sampler().sample_now(kPatience));
  CHECK_EQ(samplers(), 1);
  CHECK_EQ(sampler().since(sampler().next_index() - 1).rows.size(), 2u);
  sampler().stop();
  CHECK_EQ(samplers(), 0);
  CHECK(!sampler().sample_now(kPatience));
  sampler().stop();
}

void everything_at_once() {
  const test::Directory directory;
  const Recording recording(directory.path());
  const std::string uuid = load_nvml();
  std::atomic<bool> over{false};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      driver().use_primary();
      while (!over) CHECK_EQ(driver().free(allocate(kMiB)), 0);
    });
  }
  threads.emplace_back([&] {
    uint64_t index = 0;
    while (!over) {
      const Sampler::News news = sampler().since(index);
      for (const HistoryRow& row : news.rows) {
        CHECK(row.tracked_max <= static_cast<int64_t>(2 * kMiB));
        CHECK(row.begin_ns <= row.end_ns);
      }
      index = news.next;
      HistoryCopy copy;
      sampler().copy(copy);
      sampler().report_frameworks(0, 1, 2, 3);
      sampler().wait_for_news(0, index, 0.001);
    }
  });
  threads.emplace_back([&] {
    while (!over) sampler().sample_now(0.01);
  });
  for (int i = 0; i < 30; ++i) {
    sampler().start({{0, uuid}}, i % 2 == 0 ? kInterval : 2 * kInterval);
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (i % 3 == 0) sampler().stop();
    if (i % 10 == 9) sampler().begin_recording(directory.path());
    tracker().turn(i % 2 == 0);
  }
  over = true;
  for (std::thread& thread : threads) thread.join();
}

void a_forked_child_starts_from_nothing() {
  const test::Directory directory;
  const Recording recording(directory.path());
  sampler().start({{0, ""}}, kInterval);
  CHECK(sampler().sample_now(kPatience));
  for (int i = 0; i < 20; ++i) {
    const int status = test::in_child([] {
      CHECK_EQ(samplers(), 0);
      CHECK_EQ(sampler().next_index(), 0u);
      CHECK(sampler().since(0).rows.empty());
      HistoryCopy copy;
      sampler().copy(copy);
      CHECK(copy.rows.empty() && copy.host.empty());
      CHECK(!sampler().sample_now(0.01));
      sampler().stop();
      if (test::kThreadSanitizer) return;  // it lets no child of a process with threads start another
      sampler().begin_recording("");
      sampler().start({{0, ""}}, kInterval);
      CHECK(sampler().sample_now(kPatience));
      CHECK_EQ(sampler().since(0).rows[0].index, 0u);
      sampler().stop();
    });
    CHECK_EQ(status, 0);
  }
  const uint64_t before = sampler().next_index();
  CHECK(sampler().sample_now(kPatience));
  CHECK(sampler().next_index() > before);
  CHECK(read_history(directory / "history.bin").warnings.empty());
}

void a_process_may_end_while_it_samples() {
  const int status = test::in_child([] {
    tracker().begin_recording("", kRoomy);
    sampler().begin_recording("");
    sampler().start({{0, ""}}, kInterval);
    if (!test::kThreadSanitizer) CHECK(sampler().sample_now(kPatience));
    std::exit(0);
  });
  CHECK_EQ(status, 0);
}

// Neither the program nor its end waits for ever.
void an_nvml_that_never_answers_is_left_behind() {
  const int status = test::in_child([] {
    test::limit_time(60);
    CHECK(dlopen(STUCK_NVML, RTLD_NOW | RTLD_GLOBAL) != nullptr);
    tracker().begin_recording("", kRoomy);
    sampler().begin_recording("");
    for (int i = 0; i < 2; ++i) {
      sampler().start({{0, "GPU-1"}}, kInterval);
      CHECK(!sampler().sample_now(0.1));
      CHECK(sampler().since(0).rows.empty());
      CHECK_EQ(sampler().since(0).open.size(), 1u);
      if (i == 0) sampler().stop();
    }
    std::exit(0);
  });
  CHECK_EQ(status, 0);
}

}  // namespace

int main() {
  test::limit_time(300);
  RUN(nvml_tells_used_and_reserved_apart_where_it_can);
  RUN(what_nvml_refuses_is_unknown);
  RUN(an_absent_process_is_unknown_and_not_empty);
  RUN(a_mig_instance_is_found_by_its_own_name);
  RUN(an_nvml_that_never_answers_is_left_behind);
  RUN(a_process_may_end_while_it_samples);
  RUN(rows_have_what_the_ledger_has);
  RUN(the_driver_is_asked_only_where_nvml_does_not_tell);
  RUN(frameworks_are_in_the_rows_after_their_report);
  RUN(starting_again_changes_the_interval_only);
  RUN(everything_at_once);
  RUN(a_forked_child_starts_from_nothing);
}

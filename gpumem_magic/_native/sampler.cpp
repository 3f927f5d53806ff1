#include "sampler.h"

#include <fcntl.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "nvml_api.h"
#include "signals.h"
#include "thread_state.h"

namespace gpumem {
namespace {

constexpr uint64_t kSecond = 1000000000;
constexpr uint64_t kMostPatienceNs = 2 * kSecond;
constexpr uint64_t kPollNs = 10000000;
constexpr double kLongestWaitS = 1e9;  // thirty years: its nanoseconds still fit

uint64_t now_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * kSecond + static_cast<uint64_t>(time.tv_nsec);
}

timespec timespec_of(uint64_t ns) {
  timespec time{};
  time.tv_sec = static_cast<time_t>(ns / kSecond);
  time.tv_nsec = static_cast<decltype(time.tv_nsec)>(ns % kSecond);
  return time;
}

// That long from now. Anything that is no time at all is now.
uint64_t deadline_after(double seconds) {
  return now_ns() + static_cast<uint64_t>(seconds > 0 ? std::min(seconds, kLongestWaitS) * 1e9 : 0);
}

void init_condition(pthread_cond_t& condition) {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(&condition, &attributes);
  pthread_condattr_destroy(&attributes);
}

// Resident memory of this process, and what of it is not backed by a file or shared.
void ask_host(HostRow& row) {
  // Opened each time: a program that closes all files it does not know would have us read somebody else's.
  const int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  char text[128] = "";
  const ssize_t length = read(fd, text, sizeof text - 1);
  close(fd);
  long size = 0;
  long resident = 0;
  long shared = 0;
  if (length <= 0 || std::sscanf(text, "%ld %ld %ld", &size, &resident, &shared) != 3) return;  // NOLINT(cert-err34-c)
  static const long page = sysconf(_SC_PAGESIZE);
  row.rss_bytes = row.rss_max = resident * page;
  row.anonymous_bytes = row.anonymous_max = (resident - shared) * page;
}

}  // namespace

// ---- what is asked for a sample -------------------------------------------------------------------------------------

// Belongs to the thread of one run.
class Sampler::Sources {
 public:
  explicit Sources(const std::vector<Device>& devices) : devices_(devices), has_pools_(devices.size()) {
    NvmlApi api{};
    if (api.load()) nvml_ = std::make_unique<Nvml>(api);
    // After NVML is loaded, so that this happens before whatever NVML does when the process exits.
    static const int registered = std::atexit(stop_at_exit);
    static_cast<void>(registered);
    for (const Device& device : devices_) handles_.push_back(nvml_ != nullptr ? nvml_->find(device.uuid) : nullptr);
  }

  Sample take(const std::vector<Tracker::Tracked>& before) {
    Sample sample{{}, unknown_host_row(), before.empty() ? 0 : before[0].births_and_deaths};
    for (size_t i = 0; i < devices_.size(); ++i) {
      HistoryRow row = unknown_row(devices_[i].ordinal);
      has_pools_[i] = has_pools_[i] || before[i].footprint.ordered_births > 0;
      row.pool_bytes = has_pools_[i] ? driver().pool_bytes(devices_[i].ordinal) : 0;
      ask_nvml(handles_[i], row);
      if (row.used_bytes == kUnknownBytes) row.driver_used_bytes = driver().used_bytes(devices_[i].ordinal);
      sample.rows.push_back(row);
    }
    ask_host(sample.host);
    return sample;
  }

 private:
  void ask_nvml(NvmlDevice handle, HistoryRow& row) {
    if (nvml_ == nullptr || handle == nullptr) return;
    const Nvml::Memory memory = nvml_->memory(handle);
    row.used_bytes = row.used_max = memory.used;
    row.reserved_bytes = memory.reserved;
    row.process_bytes = row.process_max = nvml_->process_bytes(handle, static_cast<unsigned>(getpid()));
    row.utilization = nvml_->utilization(handle);
    row.known = std::isnan(row.utilization) ? 0 : 1;
  }

  const DriverMemory& driver() {
    if (driver_ == nullptr) driver_ = std::make_unique<DriverMemory>();
    return *driver_;
  }

  const std::vector<Device>& devices_;
  std::vector<bool> has_pools_;  // stream-ordered memory was allocated there
  std::unique_ptr<Nvml> nvml_;
  std::unique_ptr<DriverMemory> driver_;
  std::vector<NvmlDevice> handles_;
};

// ---- starting and stopping ------------------------------------------------------------------------------------------

Sampler::Sampler() {
  init_condition(due_);
  init_condition(done_);
}

Sampler& Sampler::instance() {
  // Never destroyed: its thread may still be at work while the process exits.
  static Sampler* sampler = [] {
    Tracker::instance();  // its fork handlers come first, so that ours takes our lock before its locks
    auto* made = new Sampler;
    pthread_atfork(before_fork, after_fork_parent, after_fork_child);
    return made;
  }();
  return *sampler;
}

void Sampler::start(std::vector<Device> devices, uint64_t interval_ns) {
  std::sort(devices.begin(), devices.end(), [](const Device& a, const Device& b) { return a.ordinal < b.ordinal; });
  {
    const Lock lock(lock_);
    if (run_ != nullptr && run_->devices == devices) {
      run_->interval_ns = interval_ns;
      run_->due_ns = std::min(run_->due_ns, now_ns() + interval_ns);
      pthread_cond_broadcast(&due_);
      return;
    }
  }
  stop();
  if (devices.empty()) return;
  auto made = std::make_shared<Run>();
  made->devices = std::move(devices);
  made->interval_ns = interval_ns;
  made->due_ns = now_ns();
  {
    const Lock lock(lock_);
    if (run_ != nullptr) return;  // somebody else started one meanwhile
    run_ = made;
    if (last_end_ns_ == 0) last_end_ns_ = made->due_ns;
  }
  open_history();
  const SignalsHeld held;  // the thread inherits this: a handler must run where the program waits for it
  const Lock lock(lock_);
  if (run_ != made) return;
  try {
    made->thread = std::thread([this, made] { run(made); });
  } catch (...) {
    run_ = nullptr;
    throw;
  }
}

void Sampler::stop() {
  std::shared_ptr<Run> ending;
  {
    Lock lock(lock_);
    ending = std::move(run_);
    run_ = nullptr;
    frameworks_.clear();
    if (ending == nullptr) return;
    ending->stopping = true;
    pthread_cond_broadcast(&due_);
    pthread_cond_broadcast(&done_);
    const uint64_t deadline = now_ns() + kMostPatienceNs;
    while (ending->thread.joinable() && !ending->ended && wait_until(lock, done_, deadline)) {
    }
  }
  if (!ending->thread.joinable()) return;
  if (ending->ended) {
    ending->thread.join();
  } else {
    ending->thread.detach();  // it sits in a driver that does not answer, and ends when that does
  }
}

void Sampler::stop_at_exit() { instance().stop(); }

bool Sampler::sample_now(double timeout_s) {
  const uint64_t deadline = deadline_after(timeout_s);
  Lock lock(lock_);
  const std::shared_ptr<Run> current = run_;
  if (current == nullptr) return false;
  const uint64_t wanted = current->begun + 1;
  current->wanted = std::max(current->wanted, wanted);
  pthread_cond_broadcast(&due_);
  while (current->done < wanted && !current->stopping && !current->ended) {
    if (!wait_until(lock, done_, deadline)) break;
  }
  return current->done >= wanted;
}

// False once the deadline has passed.
bool Sampler::wait_until(Lock& lock, pthread_cond_t& condition, uint64_t deadline_ns) {
  const timespec until = timespec_of(deadline_ns);
  return pthread_cond_timedwait(&condition, lock.mutex()->native_handle(), &until) != ETIMEDOUT;
}

// ---- the thread -----------------------------------------------------------------------------------------------------

void Sampler::run(const std::shared_ptr<Run>& run) {
  pthread_setname_np(pthread_self(), "gpumem-sampler");
  ThreadState* thread = thread_state();
  if (thread != nullptr) thread->inside = true;  // calls made from here are our own, and no events
  try {
    sample_until_stopped(*run);
  } catch (const std::bad_alloc&) {  // no memory, no samples: the program goes on without
  }
  const Lock lock(lock_);
  run->ended = true;
  pthread_cond_broadcast(&done_);
}

void Sampler::sample_until_stopped(Run& run) {
  Sources sources(run.devices);
  while (begin_sample(run)) {
    uint64_t begun_ns = 0;
    Sample sample = sources.take(tracked(run.devices, false, begun_ns));
    keep(run, sample);
  }
}

// Waits until the next sample is due, or asked for. False when it is time to end.
bool Sampler::begin_sample(Run& run) {
  Lock lock(lock_);
  while (!run.stopping && run.wanted <= run.begun && now_ns() < run.due_ns) wait_until(lock, due_, run.due_ns);
  const uint64_t now = now_ns();
  // Those that were missed are left out; the others keep their times.
  if (now >= run.due_ns) run.due_ns += ((now - run.due_ns) / run.interval_ns + 1) * run.interval_ns;
  ++run.begun;
  return !run.stopping;
}

std::vector<Tracker::Tracked> Sampler::tracked(const std::vector<Device>& devices, bool restart,
                                               uint64_t& time_ns) const {
  std::vector<Tracker::Tracked> levels(devices.size());
  for (size_t i = 0; i < devices.size(); ++i) levels[i].device = devices[i].ordinal;
  time_ns = Tracker::instance().tracked(levels, restart);
  return levels;
}

void Sampler::keep(Run& run, Sample& sample) {
  const Lock lock(lock_);
  run.done = run.begun;
  pthread_cond_broadcast(&done_);
  if (run_.get() != &run || history_ == nullptr) return;  // it was given up, or there is no recording yet
  uint64_t time_ns = 0;
  const std::vector<Tracker::Tracked> levels = tracked(run.devices, true, time_ns);
  const uint64_t index = next_.load(std::memory_order_relaxed);
  for (size_t i = 0; i < levels.size(); ++i) {
    HistoryRow& row = sample.rows[i];
    row.index = index;
    row.begin_ns = last_end_ns_;
    row.end_ns = time_ns;
    row.tracked_min = levels[i].low;
    row.tracked_max = levels[i].high;
    row.tracked_bytes = levels[i].now;
    explain(row, levels[i], levels[i].births_and_deaths == sample.births_and_deaths);
    const Frameworks& counted = frameworks_[row.device];
    row.torch_allocated_bytes = counted.torch_allocated;
    row.torch_reserved_bytes = counted.torch_reserved;
    row.cupy_used_bytes = counted.cupy_used;
    history_->device(row.device).add(row);
  }
  sample.host.index = index;
  sample.host.begin_ns = last_end_ns_;
  sample.host.end_ns = time_ns;
  history_->host().add(sample.host);
  last_end_ns_ = time_ns;
  next_.store(index + 1, std::memory_order_release);
}

// With the lock held. Only a sample during which no memory came or went says what lies beside the allocations.
void Sampler::explain(HistoryRow& row, const Tracker::Tracked& level, bool is_quiet) {
  if (level.now == kUnknownBytes) {
    row.pool_bytes = kUnknownBytes;
    return;
  }
  row.paged_bytes = static_cast<int64_t>(level.footprint.paged);
  row.ordered_bytes = static_cast<int64_t>(level.footprint.ordered);
  const int64_t pools = std::max(row.pool_bytes, row.ordered_bytes);  // the user's own pools are not asked
  Growth& growth = growths_[row.device];
  if (is_quiet && row.process_bytes != kUnknownBytes) {
    growth.see(row.end_ns, row.process_bytes - row.paged_bytes - pools, level.footprint);
  }
  row.context_bytes = growth.context_bytes();
  row.code_bytes = growth.code_bytes();
}

void Sampler::report_frameworks(uint8_t device, int64_t torch_allocated, int64_t torch_reserved, int64_t cupy_used) {
  const Lock lock(lock_);
  if (run_ != nullptr) frameworks_[device] = Frameworks{torch_allocated, torch_reserved, cupy_used};
}

// ---- recordings -----------------------------------------------------------------------------------------------------

void Sampler::begin_recording(const std::string& directory) {
  std::unique_ptr<History> old;
  {
    const Lock lock(lock_);
    old = std::move(history_);
    directory_ = directory;
    frameworks_.clear();
    growths_.clear();
    last_end_ns_ = now_ns();
    next_.store(0, std::memory_order_release);
  }
  open_history();
}

void Sampler::end_recording() {
  std::unique_ptr<History> ended;  // gone once the lock is given back
  const Lock lock(lock_);
  ended = std::move(history_);
  directory_.clear();
  next_.store(0, std::memory_order_release);
}

// Makes the history of the devices that are sampled, if it is not there yet. The disk is asked while no lock is held.
void Sampler::open_history() {
  std::string path;
  std::vector<uint8_t> devices;
  {
    const Lock lock(lock_);
    if (run_ == nullptr || history_ != nullptr) return;
    if (!directory_.empty()) path = directory_ + "/history.bin";
    for (const Device& device : run_->devices) devices.push_back(device.ordinal);
  }
  auto made = std::make_unique<History>(path, devices);
  const Lock lock(lock_);
  if (history_ == nullptr) history_.swap(made);
}

int Sampler::error() {
  const Lock lock(lock_);
  return history_ != nullptr ? history_->error() : 0;
}

// ---- reading --------------------------------------------------------------------------------------------------------

Sampler::News Sampler::since(uint64_t index) {
  News news;
  const Lock lock(lock_);
  news.next = next_.load(std::memory_order_relaxed);
  if (history_ == nullptr) return news;
  const uint64_t oldest = news.next > kHistoryLevelRows ? news.next - kHistoryLevelRows : 0;
  history_->copy_samples(std::max(index, oldest), news.next, news.rows, news.host);
  if (run_ == nullptr) return news;
  uint64_t time_ns = 0;
  for (const Tracker::Tracked& level : tracked(run_->devices, false, time_ns)) {
    const HistoryRow* last = history_->device(level.device).last();
    HistoryRow row = last != nullptr ? *last : unknown_row(level.device);
    row.index = news.next;
    row.begin_ns = last_end_ns_;
    row.end_ns = time_ns;
    row.tracked_min = level.low;
    row.tracked_max = level.high;
    row.tracked_bytes = level.now;
    news.open.push_back(row);
  }
  HostRow row = history_->host().last() != nullptr ? *history_->host().last() : unknown_host_row();
  row.index = news.next;
  row.begin_ns = last_end_ns_;
  row.end_ns = time_ns;
  news.host_open.push_back(row);
  return news;
}

uint64_t Sampler::copy(HistoryCopy& copy) {
  const Lock lock(lock_);
  if (history_ != nullptr) history_->copy(copy.rows, copy.host);
  return next_.load(std::memory_order_relaxed);
}

std::pair<uint64_t, uint64_t> Sampler::wait_for_news(uint64_t events, uint64_t index, double timeout_s) const {
  const uint64_t deadline = deadline_after(timeout_s);
  for (;;) {
    const std::pair<uint64_t, uint64_t> now{Tracker::instance().events(), next_index()};
    const uint64_t time = now_ns();
    if (now.first != events || now.second != index || time >= deadline) return now;
    const timespec pause = timespec_of(std::min(kPollNs, deadline - time));
    clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
  }
}

// ---- fork -----------------------------------------------------------------------------------------------------------

void Sampler::before_fork() { instance().lock_.lock(); }

void Sampler::after_fork_parent() { instance().lock_.unlock(); }

void Sampler::after_fork_child() {
  Sampler& self = instance();
  // The thread of the run does not exist here: leak what names it. The file is the parent's.
  if (self.run_ != nullptr) new std::shared_ptr<Run>(std::move(self.run_));
  self.run_ = nullptr;
  if (self.history_ != nullptr) self.history_.release()->abandon();
  self.directory_.clear();
  self.frameworks_.clear();
  self.growths_.clear();
  self.last_end_ns_ = 0;
  self.next_ = 0;
  // The parent's thread waits for these; here nobody does.
  init_condition(self.due_);
  init_condition(self.done_);
  self.lock_.unlock();
}

}  // namespace gpumem

#include "journal.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "fold.h"
#include "signals.h"

namespace gpumem {
namespace {

constexpr uint64_t kSegmentBytes = Journal::kSegmentEvents * sizeof(Event);
// What recording in memory may take: the promise is a process at most 64 MB larger than without us.
constexpr uint64_t kMemoryBudgetBytes = 4 * kSegmentBytes;

}  // namespace

Journal::Journal(std::string directory, uint64_t budget_bytes)
    : directory_(std::move(directory)), budget_bytes_(budget_bytes) {
  in_memory_ = directory_.empty();
  sem_init(&wake_, 0, 0);
  current_ = create_segment();
  if (current_ != nullptr) {
    current_->set_first(0);
    all_.emplace_back(current_);
  }
  const SignalsHeld held;  // the keeper inherits this: a handler must run where the program waits for it
  keeper_ = std::thread([this] { keep(); });
}

Journal::~Journal() {
  if (keeper_.joinable()) {
    stop_ = true;
    sem_post(&wake_);
    keeper_.join();
    seal_retired();
    if (current_ != nullptr) current_->finish();
  }
  Segment* spare = next_.exchange(nullptr);
  if (spare != nullptr) {
    if (is_on_disk(*spare)) unlink(spare->path().c_str());
    delete spare;
  }
  sem_destroy(&wake_);
}

void Journal::abandon() {
  // The thread object names a thread of the parent: leak it rather than join what is not there.
  if (keeper_.joinable()) new std::thread(std::move(keeper_));
  in_memory_ = true;  // never touch the parent's files
  current_ = nullptr;
}

std::string Journal::segment_path(uint32_t number) const {
  char name[32];
  std::snprintf(name, sizeof name, "/events-%08u.bin", number);
  return directory_ + name;
}

Segment* Journal::create_segment() {
  const uint32_t number = ++number_;
  int error = 0;
  Segment* segment = nullptr;
  if (!in_memory_) {
    segment = Segment::create(segment_path(number), kEventMagic, sizeof(Event), number, kSegmentBytes, error);
    if (segment != nullptr) return segment;
    int none = 0;
    error_.compare_exchange_strong(none, error);
    in_memory_ = true;
  }
  segment = Segment::create("", kEventMagic, sizeof(Event), number, kSegmentBytes, error);
  return segment;
}

void Journal::append(const Event& event) {
  if (used_ == kSegmentEvents) rotate();
  const uint64_t index = count_.load(std::memory_order_relaxed);
  if (current_ == nullptr) {
    lost_.fetch_add(1, std::memory_order_relaxed);
    count_.store(index + 1, std::memory_order_release);
    return;
  }
  std::memcpy(current_->payload() + used_ * sizeof(Event), &event, sizeof event);
  current_->commit(++used_);
  count_.store(index + 1, std::memory_order_release);
}

Segment* Journal::take_next() {
  Segment* next = next_.exchange(nullptr);
  if (next != nullptr) return next;
  const std::lock_guard<std::mutex> lock(create_mutex_);
  next = next_.exchange(nullptr);
  return next != nullptr ? next : create_segment();
}

void Journal::prepare_next() {
  const std::lock_guard<std::mutex> lock(create_mutex_);
  if (next_.load() != nullptr) return;
  Segment* segment = create_segment();
  if (segment != nullptr) segment->prefault();
  next_.store(segment);
}

void Journal::rotate() {
  Segment* next = take_next();
  if (next != nullptr) next->set_first(count_.load(std::memory_order_relaxed));
  {
    const std::lock_guard<std::mutex> lock(segments_mutex_);
    current_ = next;
    if (next != nullptr) all_.emplace_back(next);
  }
  used_ = 0;
  sem_post(&wake_);
}

std::vector<SegmentInfo> Journal::segments() const {
  const std::lock_guard<std::mutex> lock(segments_mutex_);
  std::vector<SegmentInfo> infos;
  const uint64_t total = count();
  for (size_t i = 0; i < all_.size(); ++i) {
    infos.push_back({all_[i]->path(), i < sealed_ ? 0 : all_[i]->first(), 0});
  }
  // A sealed segment is unmapped, so its header is out of reach; but every segment except the last is full.
  for (size_t i = infos.size(); i-- > 0;) {
    if (i < sealed_) infos[i].first = infos[i + 1].first - kSegmentEvents;
    const uint64_t end = i + 1 < infos.size() ? infos[i + 1].first : total;
    infos[i].count = std::min(end - infos[i].first, kSegmentEvents);
  }
  return infos;
}

void Journal::keep() {
  while (!stop_) {
    if (next_.load() == nullptr && count() > kSegmentEvents / 4) prepare_next();
    seal_retired();
    fold_to_budget();
    timespec until{};
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 1;  // no wake-up is ever needed for correctness; the pause bounds the age of a missed one
    while (sem_timedwait(&wake_, &until) != 0 && errno == EINTR) {
    }
  }
}

void Journal::seal_retired() {
  for (;;) {
    Segment* segment = nullptr;
    {
      const std::lock_guard<std::mutex> lock(segments_mutex_);
      if (sealed_ + 1 >= all_.size()) return;
      segment = all_[sealed_].get();
    }
    segment->seal();
    const std::lock_guard<std::mutex> lock(segments_mutex_);
    segment->unmap();
    ++sealed_;
  }
}

void Journal::fold_to_budget() {
  const uint64_t budget = in_memory_ ? kMemoryBudgetBytes : budget_bytes_;
  for (;;) {
    Segment* oldest = nullptr;
    {
      const std::lock_guard<std::mutex> lock(segments_mutex_);
      if (sealed_ < 1 || all_.size() * kSegmentBytes <= budget) return;
      oldest = all_[0].get();
    }
    if (!fold(*oldest)) return;
    if (!directory_.empty() && !write_fold() && !in_memory_) return;  // keep the segment: nothing recorded is lost
    const std::lock_guard<std::mutex> lock(segments_mutex_);
    // Once the disk is full, the budget is that of memory: what lies on disk stays for those who read it later.
    if (is_on_disk(*oldest) && !in_memory_) unlink(oldest->path().c_str());
    last_folded_ = nullptr;
    all_.erase(all_.begin());
    --sealed_;
  }
}

bool Journal::fold(Segment& segment) {
  if (&segment == last_folded_) return true;  // applied before, but fold.bin could not be written then
  const int fd = open(segment.path().c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const size_t size = kHeaderSize + kSegmentBytes;
  void* base = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  close(fd);
  if (base == MAP_FAILED) return false;
  if (folded_ == nullptr) {
    folded_ = std::make_unique<Ledger>();
    folded_series_ = std::make_unique<Series>();
  }
  const unsigned char* payload = static_cast<const unsigned char*>(base) + kHeaderSize;
  for (uint64_t i = 0; i < kSegmentEvents; ++i) {
    Event event;
    std::memcpy(&event, payload + i * sizeof event, sizeof event);
    folded_->apply(event);
    note_level(*folded_, *folded_series_, event);
  }
  munmap(base, size);
  last_folded_ = &segment;
  return true;
}

bool Journal::write_fold() const {
  Ledger::Tables tables;
  folded_->reserve(tables);
  folded_->copy(tables);
  return write_fold_file(directory_ + "/fold.bin", tables, folded_series_->rows());
}

}  // namespace gpumem

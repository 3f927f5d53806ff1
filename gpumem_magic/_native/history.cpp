#include "history.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "crc32.h"

namespace gpumem {
namespace {

constexpr uint32_t kHistoryNumber = 1;

// ---- merging: a later sample into a row that has begun
// ---------------------------------------------------------------

void merge(HistoryRow& row, const HistoryRow& sample, double& shares) {
  HistoryRow merged = sample;
  merged.index = row.index;
  merged.begin_ns = row.begin_ns;
  if (sample.tracked_max == kUnknownBytes) {
    merged.tracked_min = row.tracked_min;
    merged.tracked_max = row.tracked_max;
  } else if (row.tracked_max != kUnknownBytes) {
    merged.tracked_min = std::min(row.tracked_min, sample.tracked_min);
    merged.tracked_max = std::max(row.tracked_max, sample.tracked_max);
  }
  merged.used_max = std::max(row.used_max, sample.used_max);
  merged.process_max = std::max(row.process_max, sample.process_max);
  if (sample.known != 0) shares += static_cast<double>(sample.utilization) * sample.known;
  merged.known = row.known + sample.known;
  merged.utilization = merged.known != 0 ? static_cast<float>(shares / merged.known) : NAN;
  merged.samples = row.samples + sample.samples;
  merged.level = row.level;
  row = merged;
}

void merge(HostRow& row, const HostRow& sample, double& /*shares*/) {
  HostRow merged = sample;
  merged.index = row.index;
  merged.begin_ns = row.begin_ns;
  merged.rss_max = std::max(row.rss_max, sample.rss_max);
  merged.anonymous_max = std::max(row.anonymous_max, sample.anonymous_max);
  merged.samples = row.samples + sample.samples;
  merged.level = row.level;
  row = merged;
}

double share(const HistoryRow& row) { return row.known != 0 ? static_cast<double>(row.utilization) * row.known : 0; }
double share(const HostRow& /*row*/) { return 0; }

bool is_empty(const void* row, size_t size) {
  const auto* bytes = static_cast<const unsigned char*>(row);
  return std::all_of(bytes, bytes + size, [](unsigned char byte) { return byte == 0; });
}

}  // namespace

HistoryRow unknown_row(uint8_t device) {
  HistoryRow row{};
  for (int64_t* bytes : {&row.tracked_min, &row.tracked_max, &row.tracked_bytes, &row.used_bytes, &row.used_max,
                         &row.reserved_bytes, &row.process_bytes, &row.process_max, &row.driver_used_bytes,
                         &row.torch_allocated_bytes, &row.torch_reserved_bytes, &row.cupy_used_bytes, &row.paged_bytes,
                         &row.ordered_bytes, &row.pool_bytes, &row.context_bytes, &row.code_bytes}) {
    *bytes = kUnknownBytes;
  }
  row.utilization = NAN;
  row.samples = 1;
  row.device = device;
  return row;
}

HostRow unknown_host_row() {
  HostRow row{};
  row.rss_bytes = row.rss_max = row.anonymous_bytes = row.anonymous_max = kUnknownBytes;
  row.samples = 1;
  return row;
}

// ---- levels ---------------------------------------------------------------------------------------------------------

template <class Row>
void Levels<Row>::add(const Row& sample) {
  for (uint32_t level = 0; level < kHistoryLevels; ++level) {
    const size_t at = slot(sample.index, level);
    Row& row = rows_[at];
    if (any_ && number(newest_, level) == number(sample.index, level)) {
      merge(row, sample, shares_[level]);
    } else {
      row = sample;
      row.level = static_cast<uint8_t>(level);
      shares_[level] = share(sample);
    }
    checks_[at] = crc32(&row, sizeof row);
  }
  newest_ = sample.index;
  any_ = true;
}

template <class Row>
void Levels<Row>::copy(std::vector<Row>& rows) const {
  if (!any_) return;
  for (uint32_t level = 0; level < kHistoryLevels; ++level) copy_level(rows_, level, newest_, rows);
}

// Rows that an older turn of the ring left behind, where samples are missing since, are none of the latest.
template <class Row>
void Levels<Row>::copy_level(const Row* rows, uint32_t level, uint64_t newest, std::vector<Row>& copied) {
  const uint64_t last = number(newest, level);
  const uint64_t first = last >= kHistoryLevelRows ? last - kHistoryLevelRows + 1 : 0;
  for (uint64_t i = first; i <= last; ++i) {
    const Row& row = rows[level * kHistoryLevelRows + i % kHistoryLevelRows];
    if (row.samples != 0 && number(row.index, level) == i) copied.push_back(row);
  }
}

template <class Row>
const Row* Levels<Row>::sample(uint64_t index) const {
  const Row& row = rows_[slot(index, 0)];
  return row.samples != 0 && row.index == index ? &row : nullptr;
}

template <class Row>
size_t Levels<Row>::read(const void* memory, std::vector<Row>& rows) {
  std::vector<Row> good(kLevelSlots);
  std::memcpy(static_cast<void*>(good.data()), memory, kLevelSlots * sizeof(Row));
  const auto* checks = static_cast<const unsigned char*>(memory) + kLevelSlots * sizeof(Row);
  size_t damaged = 0;
  for (uint32_t level = 0; level < kHistoryLevels; ++level) {
    uint64_t newest = 0;
    for (size_t at = level * kHistoryLevelRows; at < (level + 1) * kHistoryLevelRows; ++at) {
      Row& row = good[at];
      uint32_t check = 0;
      std::memcpy(&check, checks + at * sizeof check, sizeof check);
      if (check == 0 && is_empty(&row, sizeof row)) continue;
      const bool sound =
          check == crc32(&row, sizeof row) && row.samples != 0 && row.level == level && slot(row.index, level) == at;
      if (sound) {
        newest = std::max(newest, row.index);
      } else {
        row = Row{};
        ++damaged;
      }
    }
    copy_level(good.data(), level, newest, rows);
  }
  return damaged;
}

template class Levels<HistoryRow>;
template class Levels<HostRow>;

// ---- all devices ----------------------------------------------------------------------------------------------------

namespace {

// What a file of so many devices holds, in whole rows.
size_t file_bytes(size_t devices) {
  const size_t bytes = Levels<HostRow>::kBytes + devices * Levels<HistoryRow>::kBytes;
  return (bytes + sizeof(HistoryRow) - 1) / sizeof(HistoryRow) * sizeof(HistoryRow);
}

}  // namespace

History::History(const std::string& path, const std::vector<uint8_t>& devices) {
  if (!path.empty()) {
    const size_t bytes = file_bytes(devices.size());
    segment_.reset(Segment::create(path, kHistoryMagic, sizeof(HistoryRow), kHistoryNumber, bytes, error_));
    if (segment_ != nullptr) segment_->set_first(0);
  }
  host_ = std::make_unique<Levels<HostRow>>(room(Levels<HostRow>::kBytes));
  for (const uint8_t ordinal : devices) device(ordinal);
}

History::~History() = default;

void* History::room(size_t bytes) {
  if (segment_ != nullptr && taken_ + bytes <= segment_->bytes()) {
    unsigned char* start = segment_->payload() + taken_;
    taken_ += bytes;
    return start;
  }
  void* zeros = std::calloc(1, bytes);
  if (zeros == nullptr) throw std::bad_alloc();
  memory_.emplace_back(zeros);
  return zeros;
}

Levels<HistoryRow>& History::device(uint8_t ordinal) {
  for (DeviceLevels& known : devices_) {
    if (known.ordinal == ordinal) return known.levels;
  }
  devices_.push_back(DeviceLevels{ordinal, Levels<HistoryRow>(room(Levels<HistoryRow>::kBytes))});
  return devices_.back().levels;
}

void History::copy(std::vector<HistoryRow>& rows, std::vector<HostRow>& host) const {
  for (const DeviceLevels& each : devices_) each.levels.copy(rows);
  host_->copy(host);
}

void History::copy_samples(uint64_t first, uint64_t end, std::vector<HistoryRow>& rows,
                           std::vector<HostRow>& host) const {
  for (uint64_t index = first; index < end; ++index) {
    for (const DeviceLevels& each : devices_) {
      const HistoryRow* row = each.levels.sample(index);
      if (row != nullptr) rows.push_back(*row);
    }
    const HostRow* row = host_->sample(index);
    if (row != nullptr) host.push_back(*row);
  }
}

void History::abandon() { static_cast<void>(segment_.release()); }

// ---- reading --------------------------------------------------------------------------------------------------------

HistoryCopy replay_history(const std::vector<HistoryRow>& samples, const std::vector<HostRow>& host) {
  History history("", {});
  for (const HistoryRow& sample : samples) history.device(sample.device).add(sample);
  for (const HostRow& sample : host) history.host().add(sample);
  HistoryCopy copy;
  history.copy(copy.rows, copy.host);
  return copy;
}

namespace {

struct CloseFile {
  void operator()(FILE* file) const { fclose(file); }
};
using File = std::unique_ptr<FILE, CloseFile>;

constexpr size_t kMostDevices = 256;
constexpr int kAttempts = 3;

// Reads block after block. Returns how many rows are damaged; `why` says what else is wrong.
size_t read_blocks(FILE* file, uint64_t blocks, HistoryCopy& copy, std::string& why) {
  std::vector<unsigned char> block(std::max(Levels<HostRow>::kBytes, Levels<HistoryRow>::kBytes));
  size_t damaged = 0;
  for (uint64_t i = 0; i <= blocks; ++i) {
    const size_t bytes = i == 0 ? Levels<HostRow>::kBytes : Levels<HistoryRow>::kBytes;
    if (fread(block.data(), 1, bytes, file) != bytes) {
      why = "it is cut short";
      return damaged;
    }
    damaged +=
        i == 0 ? Levels<HostRow>::read(block.data(), copy.host) : Levels<HistoryRow>::read(block.data(), copy.rows);
  }
  return damaged;
}

// Once through the file; the number of damaged rows.
size_t read_once(const std::string& path, HistoryCopy& copy, std::string& why) {
  const File file(open_regular(path));
  if (file == nullptr) {
    why = "it cannot be opened";
    return 0;
  }
  alignas(SegmentHeader) unsigned char bytes[kHeaderSize];
  if (fread(bytes, 1, kHeaderSize, file.get()) != kHeaderSize) {
    why = "it is cut short within its header";
    return 0;
  }
  if (!check_header(bytes, kHistoryMagic, sizeof(HistoryRow), why)) return 0;
  const auto* header = reinterpret_cast<const SegmentHeader*>(bytes);
  const uint64_t payload = header->capacity * sizeof(HistoryRow);
  const uint64_t devices =
      payload < Levels<HostRow>::kBytes ? 0 : (payload - Levels<HostRow>::kBytes) / Levels<HistoryRow>::kBytes;
  if (devices > kMostDevices) {
    why = "it names more devices than there are";
    return 0;
  }
  return read_blocks(file.get(), devices, copy, why);
}

}  // namespace

HistoryCopy read_history(const std::string& path) {
  HistoryCopy copy;
  std::string why;
  size_t damaged = 0;
  // A recorder that is at work may be half way through a row, and is so for some nanoseconds.
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    copy = HistoryCopy{};
    why.clear();
    damaged = read_once(path, copy, why);
    if (damaged == 0) break;
  }
  const std::string name = path.substr(path.rfind('/') + 1);
  if (!why.empty()) copy.warnings.push_back(name + ": " + why + "; memory over time is missing or incomplete.");
  if (damaged != 0) {
    copy.warnings.push_back(name + ": " + std::to_string(damaged) + " of its rows are damaged and left out.");
  }
  return copy;
}

}  // namespace gpumem

#include "replay.h"

#include <cstdio>
#include <cstring>
#include <memory>

#include "crc32.h"
#include "fold.h"
#include "segment.h"

namespace gpumem {
namespace {

struct CloseFile {
  void operator()(FILE* file) const { fclose(file); }
};
using File = std::unique_ptr<FILE, CloseFile>;

// A recorder that is at work folds old segments away. What is open can be read to its end; 256 segments are twice the
// default budget, and more are opened when their turn comes.
constexpr size_t kOpenAtOnce = 256;

class Reader {
 public:
  Reader(Replay& result, Ledger& ledger, Series& series) : result_(result), ledger_(ledger), series_(series) {}

  // `file` is the open file at `path`; nullptr when it could not be opened.
  void read(const std::string& path, FILE* file);

 private:
  static constexpr size_t kBatch = 1 << 14;

  void warn(const std::string& path, const std::string& what) {
    result_.warnings.push_back(path.substr(path.rfind('/') + 1) + ": " + what + ".");
  }
  void apply(uint64_t index, Event& event);
  void read_again();

  Replay& result_;
  Ledger& ledger_;
  Series& series_;
  std::vector<Event> batch_{kBatch};
  std::string previous_;  // the segment read last, and how many warnings there were before it
  size_t warnings_before_ = 0;
};

void Reader::apply(uint64_t index, Event& event) {
  if (index < ledger_.next_serial()) return;  // folded already
  ledger_.apply(event);
  note_level(ledger_, series_, event);
  result_.last_ns = event.time_ns;
}

void Reader::read(const std::string& path, FILE* file) {
  size_t warnings_before = result_.warnings.size();
  if (file == nullptr) {
    warn(path, "it cannot be opened");
    return;
  }
  alignas(SegmentHeader) unsigned char bytes[kHeaderSize];
  if (fread(bytes, 1, kHeaderSize, file) != kHeaderSize) {
    warn(path, "it is cut short within its header");
    return;
  }
  std::string why;
  if (!check_header(bytes, kEventMagic, sizeof(Event), why)) {
    warn(path, why + "; its events are left out");
    return;
  }
  const auto* header = reinterpret_cast<const SegmentHeader*>(bytes);
  const uint64_t committed = header->committed.load();
  const uint64_t promised = std::min(committed, header->capacity);
  if (committed > header->capacity) warn(path, "it claims more events than it has room for");
  if (header->first > ledger_.next_serial() && !previous_.empty()) {
    read_again();
    warnings_before = result_.warnings.size();
  }
  if (header->first > ledger_.next_serial()) {
    warn(path, "the " + std::to_string(header->first - ledger_.next_serial()) + " events before it are missing");
    ledger_.skip_to(header->first);
  }
  uint64_t done = 0;
  uint32_t crc = 0;
  while (done < promised) {
    const size_t want = std::min<uint64_t>(kBatch, promised - done);
    const size_t got = fread(batch_.data(), sizeof(Event), want, file);
    crc = crc32(batch_.data(), got * sizeof(Event), crc);
    size_t whole = 0;
    for (; whole < got && batch_[whole].kind != kNone; ++whole) apply(header->first + done + whole, batch_[whole]);
    done += whole;
    if (whole < got) {  // pages that never reached the disk read as zeros
      warn(path, "it has a hole: " + std::to_string(promised - done) + " of its events are missing");
      break;
    }
    if (got < want) {
      warn(path, "it is cut short: " + std::to_string(promised - done) + " of its events are missing");
      break;
    }
  }
  if (header->sealed == 1 && done == committed && crc != header->checksum) {
    warn(path, "its checksum does not match: some of its events are damaged");
  }
  // A segment that was prepared and not used yet has no place in the order of events.
  if (done > 0) result_.segments.push_back({path, header->first, done});
  previous_ = path;
  warnings_before_ = warnings_before;
}

// The writer filled the segment before this one, and began this one, while we were reading that.
void Reader::read_again() {
  const std::string path = std::move(previous_);
  previous_.clear();
  result_.warnings.resize(warnings_before_);
  if (!result_.segments.empty() && result_.segments.back().path == path) result_.segments.pop_back();
  const File file(open_regular(path));
  read(path, file.get());
}

}  // namespace

Replay replay_recording(const std::vector<std::string>& paths, const std::string& fold) {
  Replay result;
  std::vector<File> files;
  files.reserve(paths.size());
  for (const std::string& path : paths) {
    files.emplace_back(files.size() < kOpenAtOnce ? open_regular(path) : nullptr);
  }
  Ledger ledger;
  Series series;
  if (!fold.empty()) {
    std::vector<SeriesRow> rows;
    std::string why;
    if (read_fold_file(fold, result.tables, rows, why)) {
      ledger.restore(result.tables);
      series.restore(rows);
    } else {
      result.warnings.push_back("fold.bin: " + why + "; what happened before the first kept event is unknown.");
    }
    result.tables = Ledger::Tables{};
  }
  Reader reader(result, ledger, series);
  for (size_t i = 0; i < paths.size(); ++i) {
    if (i >= kOpenAtOnce) files[i].reset(open_regular(paths[i]));
    reader.read(paths[i], files[i].get());
    files[i].reset();
  }
  ledger.copy(result.tables);
  result.series = series.rows();
  return result;
}

Ledger::Tables replay_events(const void* events, size_t count) {
  Ledger ledger;
  for (size_t i = 0; i < count; ++i) {
    Event event;
    std::memcpy(&event, static_cast<const char*>(events) + i * sizeof event, sizeof event);
    ledger.apply(event);
  }
  Ledger::Tables tables;
  ledger.copy(tables);
  return tables;
}

}  // namespace gpumem

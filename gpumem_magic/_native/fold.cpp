#include "fold.h"

#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <memory>

#include "crc32.h"
#include "segment.h"

namespace gpumem {
namespace {

struct FoldHeader {
  char magic[8];
  uint32_t version;
  uint32_t header_size;
  uint64_t next_serial;
  uint64_t rows[8];  // allocations, mappings, sites, meters, spans, span meters, series, open spans with meters
  uint64_t counters[kCounters];
  uint32_t body_crc;
  uint32_t header_crc;  // of everything before it
};

struct CloseFile {
  void operator()(FILE* file) const { fclose(file); }
};
using File = std::unique_ptr<FILE, CloseFile>;

// One table on its way to or from the file.
struct Part {
  void* data;
  size_t bytes;
};

template <class Row>
Part part(const std::vector<Row>& rows) {
  return {const_cast<Row*>(rows.data()), rows.size() * sizeof(Row)};
}

std::vector<Part> parts(const Ledger::Tables& t, const std::vector<SeriesRow>& series) {
  return {part(t.allocations), part(t.mappings),    part(t.sites), part(t.meters),
          part(t.spans),       part(t.span_meters), part(series),  part(t.metered_spans)};
}

// Thirteen million live allocations. A file may claim more without holding it: holes cost nothing on disk.
constexpr uint64_t kMaxFoldBytes = 1ull << 30;

uint32_t header_crc(const FoldHeader& header) { return crc32(&header, offsetof(FoldHeader, header_crc)); }

}  // namespace

void note_level(const Ledger& ledger, Series& series, const Event& event) {
  const bool touched = is_birth(event.kind) || is_death(event.kind) || event.kind == kUnmap;
  if (touched && event.device != kNoDevice) {
    series.add(event.device, event.time_ns, ledger.live_bytes(event.device, kDeviceLayer));
  }
}

bool write_fold_file(const std::string& path, const Ledger::Tables& tables, const std::vector<SeriesRow>& series) {
  uint64_t size = sizeof(FoldHeader);
  for (const Part& p : parts(tables, series)) size += p.bytes;
  if (size > kMaxFoldBytes) return false;  // no reader would take it; the segments stay instead
  const std::string temporary = path + ".tmp";
  {
    const File file(fopen(temporary.c_str(), "wbe"));
    if (file == nullptr) return false;
    FoldHeader header{};
    std::memcpy(header.magic, kFoldMagic, sizeof header.magic);
    header.version = kFormatVersion;
    header.header_size = sizeof header;
    header.next_serial = tables.next_serial;
    std::memcpy(header.counters, tables.counters, sizeof header.counters);
    const uint64_t rows[] = {
        tables.allocations.size(), tables.mappings.size(),    tables.sites.size(), tables.meters.size(),
        tables.spans.size(),       tables.span_meters.size(), series.size(),       tables.metered_spans.size()};
    std::memcpy(header.rows, rows, sizeof rows);
    for (const Part& p : parts(tables, series)) header.body_crc = crc32(p.data, p.bytes, header.body_crc);
    header.header_crc = header_crc(header);
    bool good = fwrite(&header, sizeof header, 1, file.get()) == 1;
    for (const Part& p : parts(tables, series)) good = good && fwrite(p.data, 1, p.bytes, file.get()) == p.bytes;
    good = good && fflush(file.get()) == 0;
    if (!good) {
      unlink(temporary.c_str());
      return false;
    }
  }
  return rename(temporary.c_str(), path.c_str()) == 0;
}

bool read_fold_file(const std::string& path, Ledger::Tables& tables, std::vector<SeriesRow>& series, std::string& why) {
  const File file(open_regular(path));
  FoldHeader header{};
  if (file == nullptr || fread(&header, sizeof header, 1, file.get()) != 1) {
    why = "it is too short or cannot be read";
    return false;
  }
  if (std::memcmp(header.magic, kFoldMagic, sizeof header.magic) != 0 || header.version != kFormatVersion ||
      header.header_size != sizeof header || header.header_crc != header_crc(header)) {
    why = "it is not a fold of this format version, or its header is damaged";
    return false;
  }
  fseek(file.get(), 0, SEEK_END);
  const uint64_t size = static_cast<uint64_t>(ftell(file.get()));
  fseek(file.get(), sizeof header, SEEK_SET);
  if (size > kMaxFoldBytes) {
    why = "it is larger than any fold";
    return false;
  }
  const uint64_t row_bytes[] = {sizeof(AllocationRow), sizeof(MappingRow),   sizeof(SiteRow),   sizeof(MeterRow),
                                sizeof(SpanRow),       sizeof(SpanMeterRow), sizeof(SeriesRow), sizeof(uint32_t)};
  uint64_t expected = sizeof header;
  for (size_t i = 0; i < sizeof row_bytes / sizeof *row_bytes; ++i) {
    if (header.rows[i] > size / row_bytes[i]) {
      why = "it names more rows than it holds";
      return false;
    }
    expected += header.rows[i] * row_bytes[i];
  }
  if (expected != size) {
    why = "it is cut short";
    return false;
  }
  tables.allocations.resize(header.rows[0]);
  tables.mappings.resize(header.rows[1]);
  tables.sites.resize(header.rows[2]);
  tables.meters.resize(header.rows[3]);
  tables.spans.resize(header.rows[4]);
  tables.span_meters.resize(header.rows[5]);
  series.resize(header.rows[6]);
  tables.metered_spans.resize(header.rows[7]);
  uint32_t crc = 0;
  for (const Part& p : parts(tables, series)) {
    if (fread(p.data, 1, p.bytes, file.get()) != p.bytes) {
      why = "it is cut short";
      return false;
    }
    crc = crc32(p.data, p.bytes, crc);
  }
  if (crc != header.body_crc) {
    why = "its contents are damaged";
    return false;
  }
  std::memcpy(tables.counters, header.counters, sizeof header.counters);
  tables.next_serial = header.next_serial;
  return true;
}

}  // namespace gpumem

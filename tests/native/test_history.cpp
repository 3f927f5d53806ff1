// Levels of rows: what merges into what, where a level wraps, what is unknown, and what another process reads of it.
#include <cmath>

#include "check.h"
#include "history.h"

namespace {

using namespace gpumem;

constexpr uint64_t kTenth = 100000000;

HistoryRow sample(uint64_t index, int64_t bytes, uint8_t device = 0) {
  HistoryRow row = unknown_row(device);
  row.index = index;
  row.begin_ns = index * kTenth;
  row.end_ns = row.begin_ns + kTenth;
  row.tracked_min = bytes - 1;
  row.tracked_max = bytes + 1;
  row.tracked_bytes = row.used_bytes = row.used_max = row.process_bytes = row.process_max = bytes;
  row.utilization = static_cast<float>(index % 101);
  row.known = 1;
  return row;
}

HostRow host_sample(uint64_t index, int64_t bytes) {
  HostRow row = unknown_host_row();
  row.index = index;
  row.rss_bytes = row.rss_max = bytes;
  return row;
}

std::vector<HistoryRow> of_level(const std::vector<HistoryRow>& rows, uint32_t level) {
  std::vector<HistoryRow> found;
  for (const HistoryRow& row : rows) {
    if (row.level == level) found.push_back(row);
  }
  return found;
}

HistoryCopy copy_of(const History& history) {
  HistoryCopy copy;
  history.copy(copy.rows, copy.host);
  return copy;
}

void a_level_begins_a_row_at_each_boundary() {
  History history("", {0});
  for (uint64_t i = 0; i < 16; ++i) history.device(0).add(sample(i, i == 5 ? 1000 : 10));
  auto rows = of_level(copy_of(history).rows, 1);
  CHECK_EQ(rows.size(), 4u);
  for (uint64_t i = 0; i < rows.size(); ++i) {
    CHECK_EQ(rows[i].index, 4 * i);
    CHECK_EQ(rows[i].samples, 4u);
    CHECK_EQ(rows[i].begin_ns, 4 * i * kTenth);
    CHECK_EQ(rows[i].end_ns, (4 * i + 4) * kTenth);
    CHECK_EQ(rows[i].tracked_max, i == 1 ? 1001 : 11);
    CHECK_EQ(rows[i].used_max, i == 1 ? 1000 : 10);
    CHECK_EQ(rows[i].process_max, i == 1 ? 1000 : 10);
    CHECK_EQ(rows[i].tracked_min, 9);
    CHECK_EQ(rows[i].tracked_bytes, 10);
    CHECK_EQ(rows[i].utilization, static_cast<float>(4 * i) + 1.5f);
    CHECK_EQ(rows[i].known, 4u);
  }
  CHECK_EQ(of_level(copy_of(history).rows, 2).size(), 1u);
  history.device(0).add(sample(16, 10));
  CHECK_EQ(of_level(copy_of(history).rows, 2).size(), 2u);
  CHECK_EQ(of_level(copy_of(history).rows, 2)[1].samples, 1u);
  CHECK_EQ(of_level(copy_of(history).rows, 7)[0].samples, 17u);
}

void a_device_that_comes_late_begins_within_a_row() {
  History history("", {});
  for (uint64_t i = 6; i < 10; ++i) history.device(9).add(sample(i, 10, 9));
  const auto rows = of_level(copy_of(history).rows, 1);
  CHECK_EQ(rows.size(), 2u);
  CHECK_EQ(rows[0].index, 6u);
  CHECK_EQ(rows[0].samples, 2u);
  CHECK_EQ(rows[1].index, 8u);
}

void the_ring_wraps() {
  History history("", {0});
  const uint64_t count = 4 * kHistoryLevelRows + 3;
  for (uint64_t i = 0; i < count; ++i) {
    history.device(0).add(sample(i, i == 2 ? 5000 : 10));
    history.host().add(host_sample(i, static_cast<int64_t>(i)));
  }
  const HistoryCopy copy = copy_of(history);
  for (uint32_t level = 0; level < 3; ++level) {
    const auto rows = of_level(copy.rows, level);
    const uint64_t made = (count + (1ull << (2 * level)) - 1) >> (2 * level);
    CHECK_EQ(rows.size(), std::min(made, kHistoryLevelRows));
    CHECK_EQ(rows.back().end_ns, count * kTenth);
    for (size_t i = 1; i < rows.size(); ++i) CHECK_EQ(rows[i].begin_ns, rows[i - 1].end_ns);
  }
  CHECK_EQ(of_level(copy.rows, 0)[0].index, count - kHistoryLevelRows);
  CHECK_EQ(of_level(copy.rows, 1)[0].index, 4u);  // a row of four more than there is room for
  CHECK_EQ(of_level(copy.rows, 2)[0].used_max, 5000);
  CHECK(history.device(0).sample(count - kHistoryLevelRows - 1) == nullptr);
  CHECK_EQ(history.device(0).sample(count - 1)->index, count - 1);
  CHECK(history.device(0).sample(count) == nullptr);
  CHECK_EQ(copy.host.back().rss_max, static_cast<int64_t>(count - 1));
}

void what_is_unknown_stays_so_and_hides_nothing() {
  std::vector<uint64_t> memory(Levels<HistoryRow>::kBytes / sizeof(uint64_t));
  Levels<HistoryRow> levels(memory.data());
  HistoryRow blind = unknown_row(0);
  levels.add(blind);
  HistoryRow seen = sample(1, 50);
  seen.known = 0;
  seen.utilization = NAN;
  levels.add(seen);
  blind.index = 2;
  levels.add(blind);
  std::vector<HistoryRow> rows;
  levels.copy(rows);
  const HistoryRow row = of_level(rows, 1)[0];
  CHECK_EQ(row.tracked_min, 49);
  CHECK_EQ(row.tracked_max, 51);
  CHECK_EQ(row.tracked_bytes, kUnknownBytes);
  CHECK_EQ(row.used_max, 50);
  CHECK_EQ(row.used_bytes, kUnknownBytes);
  CHECK_EQ(row.driver_used_bytes, kUnknownBytes);
  CHECK_EQ(row.known, 0u);
  CHECK(std::isnan(row.utilization));
  HistoryRow busy = sample(3, 50);
  busy.utilization = 80;
  levels.add(busy);
  rows.clear();
  levels.copy(rows);
  CHECK_EQ(of_level(rows, 1)[0].utilization, 80.0f);
  CHECK_EQ(of_level(rows, 1)[0].known, 1u);
}

void samples_come_by_index_then_device() {
  History history("", {0, 1});
  for (uint64_t i = 0; i < 5; ++i) {
    for (uint8_t device = 0; device < 2; ++device) history.device(device).add(sample(i, 10, device));
    history.host().add(host_sample(i, 1));
  }
  HistoryCopy copy;
  history.copy_samples(2, 5, copy.rows, copy.host);
  CHECK_EQ(copy.rows.size(), 6u);
  CHECK_EQ(copy.host.size(), 3u);
  for (size_t i = 0; i < copy.rows.size(); ++i) {
    CHECK_EQ(copy.rows[i].index, 2 + i / 2);
    CHECK_EQ(copy.rows[i].device, i % 2);
  }
}

// ---- on disk --------------------------------------------------------------------------------------------------------

template <class Row>
bool equal(const std::vector<Row>& a, const std::vector<Row>& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(Row)) == 0);
}

bool equal(const HistoryCopy& a, const HistoryCopy& b) { return equal(a.rows, b.rows) && equal(a.host, b.host); }

void a_reader_sees_what_was_written() {
  const test::Directory directory;
  const std::string path = directory / "history.bin";
  History history(path, {0, 3});
  CHECK_EQ(history.error(), 0);
  CHECK(equal(read_history(path), HistoryCopy{}));
  for (uint64_t i = 0; i < 5000; ++i) {
    history.device(0).add(sample(i, 10));
    history.device(3).add(sample(i, 20, 3));
    history.host().add(host_sample(i, 7));
    if (i % 1111 == 0) CHECK(equal(read_history(path), copy_of(history)));
  }
  const HistoryCopy read = read_history(path);
  CHECK(read.warnings.empty());
  CHECK(equal(read, copy_of(history)));
  history.device(4).add(sample(5000, 10, 4));  // the file has no room for one more: it is kept in memory
  CHECK(equal(read_history(path), read));
  CHECK_EQ(copy_of(history).rows.size(), read.rows.size() + kHistoryLevels);
}

void a_killed_writer_leaves_its_rows() {
  const test::Directory directory;
  const std::string path = directory / "history.bin";
  const int status = test::in_child([&] {
    History history(path, {0});
    for (uint64_t i = 0; i < 100; ++i) history.device(0).add(sample(i, 10));
    raise(SIGKILL);
  });
  CHECK(WIFSIGNALED(status));
  const HistoryCopy read = read_history(path);
  CHECK(read.warnings.empty());
  CHECK_EQ(of_level(read.rows, 0).size(), 100u);
}

void half_a_row_is_left_out_and_said() {
  const test::Directory directory;
  const std::string path = directory / "history.bin";
  {
    History history(path, {0});
    for (uint64_t i = 0; i < 10; ++i) history.device(0).add(sample(i, 10));
  }
  std::string bytes = test::read_file(path);
  const size_t rows = kHeaderSize + Levels<HostRow>::kBytes;
  bytes[rows + 3 * sizeof(HistoryRow) + 40] ^= 1;
  test::write_file(path, bytes);
  const HistoryCopy read = read_history(path);
  CHECK_EQ(of_level(read.rows, 0).size(), 9u);
  CHECK_EQ(read.warnings.size(), 1u);
  CHECK(read.warnings[0] == "history.bin: 1 of its rows are damaged and left out.");
}

void a_place_that_cannot_be_written_is_memory() {
  History history("/nonexistent/history.bin", {0});
  CHECK_EQ(history.error(), ENOENT);
  history.device(0).add(sample(0, 10));
  CHECK_EQ(copy_of(history).rows.size(), static_cast<size_t>(kHistoryLevels));
}

}  // namespace

int main() {
  test::limit_time(120);
  RUN(a_level_begins_a_row_at_each_boundary);
  RUN(a_device_that_comes_late_begins_within_a_row);
  RUN(the_ring_wraps);
  RUN(what_is_unknown_stays_so_and_hides_nothing);
  RUN(samples_come_by_index_then_device);
  RUN(a_reader_sees_what_was_written);
  RUN(a_killed_writer_leaves_its_rows);
  RUN(half_a_row_is_left_out_and_said);
  RUN(a_place_that_cannot_be_written_is_memory);
}

// Recordings that were cut, flipped, forged or planted: reading one ends in warnings, never in a crash, an exception
// or a hang. Half of the damage carries correct checksums, as a hostile author's would.
#include <sys/stat.h>
#include <unistd.h>

#include "crc32.h"
#include "fold.h"
#include "journal.h"
#include "random_events.h"
#include "replay.h"
#include "tables_equal.h"

namespace {

using namespace gpumem;

constexpr int kMutations = test::kThreadSanitizer ? 100 : 3000;  // threads play no part here

struct Sample {
  std::string events, fold;
  uint64_t folded = 0;
  Ledger::Tables tables;
};

// A small recording: a fold of 400 events, and a segment of 300 that follow.
Sample make_sample() {
  const test::Directory directory;
  Sample sample;
  Ledger ledger;
  Series series;
  test::RandomEvents events(11);
  for (int i = 0; i < 400; ++i) {
    Event event = events.next();
    ledger.apply(event);
    note_level(ledger, series, event);
  }
  sample.folded = ledger.next_serial();
  CHECK(write_fold_file(directory / "fold.bin", test::tables_of(ledger), series.rows()));
  int error = 0;
  const std::unique_ptr<Segment> segment(
      Segment::create(directory / "events-00000001.bin", kEventMagic, sizeof(Event), 1, 300 * sizeof(Event), error));
  CHECK(segment != nullptr);
  segment->set_first(sample.folded);
  for (uint64_t i = 0; i < 300; ++i) {
    Event event = events.next();
    ledger.apply(event);
    std::memcpy(segment->payload() + i * sizeof event, &event, sizeof event);
    segment->commit(i + 1);
  }
  segment->finish();
  sample.events = test::read_file(directory / "events-00000001.bin");
  sample.fold = test::read_file(directory / "fold.bin");
  sample.tables = test::tables_of(ledger);
  return sample;
}

template <class T>
void put(std::string& bytes, size_t offset, T value) {
  if (offset + sizeof value <= bytes.size()) std::memcpy(bytes.data() + offset, &value, sizeof value);
}

// Values that break arithmetic.
uint64_t awkward(test::Random& random) {
  constexpr uint64_t values[] = {0,         1,          63,         64,         255,        4095,       4096,
                                 1u << 31,  UINT32_MAX, 1ull << 32, 1ull << 57, 1ull << 58, 1ull << 63, UINT64_MAX - 1,
                                 UINT64_MAX};
  return values[test::below(random, sizeof values / sizeof *values)];
}

void damage(std::string& bytes, test::Random& random) {
  const uint64_t changes = 1 + test::below(random, 6);
  for (uint64_t i = 0; i < changes && !bytes.empty(); ++i) {
    // Headers are small and matter most.
    const size_t reach = test::one_in(random, 2) ? std::min<size_t>(bytes.size(), 160) : bytes.size();
    const size_t at = test::below(random, reach);
    switch (test::below(random, 5)) {
      case 0:
        bytes[at] = static_cast<char>(bytes[at] ^ (1 << test::below(random, 8)));
        break;
      case 1:
        bytes[at] = static_cast<char>(random());
        break;
      case 2:
        put(bytes, at / 8 * 8, awkward(random));
        break;
      case 3:
        put(bytes, at / 4 * 4, static_cast<uint32_t>(awkward(random)));
        break;
      default:
        if (test::one_in(random, 2)) {
          bytes.resize(test::below(random, bytes.size() + 1));
        } else {
          bytes.append(test::below(random, 300), static_cast<char>(random()));
        }
    }
  }
}

void forge_segment(std::string& bytes) {
  if (bytes.size() >= kHeaderSize) put(bytes, 60, crc32(bytes.data(), 60));
}

constexpr size_t kFoldHeader = 8 + 4 + 4 + 8 + 8 * 8 + kCounters * 8 + 4 + 4;

void forge_fold(std::string& bytes) {
  if (bytes.size() < kFoldHeader) return;
  put(bytes, kFoldHeader - 8, crc32(bytes.data() + kFoldHeader, bytes.size() - kFoldHeader));
  put(bytes, kFoldHeader - 4, crc32(bytes.data(), kFoldHeader - 4));
}

void undamaged() {
  const Sample sample = make_sample();
  const test::Directory directory;
  test::write_file(directory / "events-00000001.bin", sample.events);
  test::write_file(directory / "fold.bin", sample.fold);
  const Replay replay = replay_recording(directory.files("events-"), directory / "fold.bin");
  CHECK(replay.warnings.empty());
  CHECK_EQ(replay.tables.counters[kEvents], 700u);
  test::check_same(replay.tables, sample.tables);
}

void mutated_segments() {
  const Sample sample = make_sample();
  const test::Directory directory;
  test::write_file(directory / "fold.bin", sample.fold);
  for (int i = 0; i < kMutations; ++i) {
    test::Random random(i);
    std::string bytes = sample.events;
    damage(bytes, random);
    if (i % 2 != 0) forge_segment(bytes);
    test::write_file(directory / "events-00000001.bin", bytes);
    const Replay replay = replay_recording(directory.files("events-"), i % 3 == 0 ? directory / "fold.bin" : "");
    test::check_consistent(replay.tables);
  }
}

void mutated_folds() {
  const Sample sample = make_sample();
  const test::Directory directory;
  test::write_file(directory / "events-00000001.bin", sample.events);
  int read_anyway = 0;
  for (int i = 0; i < kMutations; ++i) {
    test::Random random(i);
    std::string bytes = sample.fold;
    damage(bytes, random);
    if (i % 2 != 0) forge_fold(bytes);
    test::write_file(directory / "fold.bin", bytes);
    const Replay replay = replay_recording(directory.files("events-"), directory / "fold.bin");
    read_anyway += replay.warnings.empty();
    if (i % 2 == 0 && bytes != sample.fold) CHECK(!replay.warnings.empty());
  }
  CHECK(read_anyway > kMutations / 40);  // the forged ones got past the checksums
}

void every_truncation() {
  const Sample sample = make_sample();
  const test::Directory directory;
  for (size_t size = 0; size <= sample.events.size(); size += size < 4200 ? 97 : 31) {
    test::write_file(directory / "events-00000001.bin", sample.events.substr(0, size));
    const Replay replay = replay_recording(directory.files("events-"), "");
    CHECK(!replay.warnings.empty());  // the fold is missing in any case
    // A segment without events has no place in their order, whatever it says.
    CHECK_EQ(replay.segments.size(), size >= kHeaderSize + sizeof(Event) ? 1u : 0u);
    test::check_consistent(replay.tables);
  }
  test::write_file(directory / "events-00000001.bin", sample.events);
  for (size_t size = 0; size < sample.fold.size(); size += 41) {
    test::write_file(directory / "fold.bin", sample.fold.substr(0, size));
    CHECK(!replay_recording(directory.files("events-"), directory / "fold.bin").warnings.empty());
  }
}

void a_flipped_bit_in_a_sealed_segment_is_told() {
  const Sample sample = make_sample();
  const test::Directory directory;
  test::write_file(directory / "fold.bin", sample.fold);
  test::Random random(6);
  for (int i = 0; i < 300; ++i) {
    std::string bytes = sample.events;
    const size_t at = kHeaderSize + test::below(random, bytes.size() - kHeaderSize);
    bytes[at] = static_cast<char>(bytes[at] ^ (1 << test::below(random, 8)));
    test::write_file(directory / "events-00000001.bin", bytes);
    CHECK(!replay_recording(directory.files("events-"), directory / "fold.bin").warnings.empty());
  }
}

// Pages that a crash of the machine kept from the disk read as zeros: they are no events.
void a_hole_is_no_event() {
  const Sample sample = make_sample();
  const test::Directory directory;
  std::string bytes = sample.events;
  std::fill(bytes.begin() + kHeaderSize + 100 * 64, bytes.end(), '\0');
  put(bytes, 72, uint32_t{0});  // not sealed
  test::write_file(directory / "events-00000001.bin", bytes);
  test::write_file(directory / "fold.bin", sample.fold);
  const Replay replay = replay_recording(directory.files("events-"), directory / "fold.bin");
  CHECK_EQ(replay.warnings.size(), 1u);
  CHECK_EQ(replay.tables.counters[kEvents], 500u);
  CHECK(replay.last_ns > 0);
}

// A file may claim terabytes that it has: a hole costs nothing on disk, and must cost nothing here.
void sparse_files() {
  const Sample sample = make_sample();
  const test::Directory directory;
  constexpr uint64_t kSize = 1ull << 40;
  std::string bytes = sample.events;
  put(bytes, 32, uint64_t{kSize});  // capacity
  put(bytes, 64, uint64_t{kSize});  // committed
  put(bytes, 72, uint32_t{0});
  forge_segment(bytes);
  test::write_file(directory / "events-00000001.bin", bytes);
  CHECK_EQ(truncate((directory / "events-00000001.bin").c_str(), kSize), 0);
  CHECK(!replay_recording(directory.files("events-"), "").warnings.empty());

  std::string fold = sample.fold.substr(0, kFoldHeader);
  uint64_t rows[8] = {kSize / sizeof(AllocationRow)};
  std::memcpy(fold.data() + 24, rows, sizeof rows);
  put(fold, kFoldHeader - 4, crc32(fold.data(), kFoldHeader - 4));
  test::write_file(directory / "fold.bin", fold);
  CHECK_EQ(
      truncate((directory / "fold.bin").c_str(), static_cast<off_t>(kFoldHeader + rows[0] * sizeof(AllocationRow))), 0);
  CHECK(!replay_recording({}, directory / "fold.bin").warnings.empty());
}

void things_that_are_no_files() {
  const test::Directory directory;
  CHECK_EQ(mkfifo((directory / "events-00000001.bin").c_str(), 0600), 0);
  CHECK_EQ(mkdir((directory / "events-00000002.bin").c_str(), 0700), 0);
  CHECK_EQ(symlink("/dev/zero", (directory / "events-00000003.bin").c_str()), 0);
  CHECK_EQ(symlink("nowhere", (directory / "events-00000004.bin").c_str()), 0);
  CHECK_EQ(mkfifo((directory / "fold.bin").c_str(), 0600), 0);
  const Replay replay = replay_recording(directory.files("events-"), directory / "fold.bin");
  CHECK_EQ(replay.warnings.size(), 5u);
  CHECK_EQ(replay.tables.counters[kEvents], 0u);
  CHECK(!replay_recording({}, "/dev/zero").warnings.empty());
  CHECK(!replay_recording({}, "/").warnings.empty());
}

void segments_in_any_order_and_twice() {
  const Sample sample = make_sample();
  const test::Directory directory;
  test::write_file(directory / "events-00000001.bin", sample.events);
  test::write_file(directory / "fold.bin", sample.fold);
  const std::string segment = directory / "events-00000001.bin";
  const Replay replay = replay_recording({segment, segment, segment}, directory / "fold.bin");
  test::check_same(replay.tables, sample.tables);  // an event counts once, however often it is met
}

void any_bytes_as_events() {
  test::Random random(77);
  for (int round = 0; round < 200; ++round) {
    std::vector<Event> events(200);
    for (Event& event : events) {
      uint64_t words[8];
      for (uint64_t& word : words) word = random();
      std::memcpy(&event, words, sizeof event);
      event.kind = static_cast<uint8_t>(random() % 128);
      event.status = test::one_in(random, 4);
      event.address &= 0xff;
      event.handle &= 0xff;
    }
    test::check_consistent(replay_events(events.data(), events.size()));
  }
}

}  // namespace

int main() {
  test::limit_time(240);
  RUN(undamaged);
  RUN(mutated_segments);
  RUN(mutated_folds);
  RUN(every_truncation);
  RUN(a_flipped_bit_in_a_sealed_segment_is_told);
  RUN(a_hole_is_no_event);
  RUN(sparse_files);
  RUN(things_that_are_no_files);
  RUN(segments_in_any_order_and_twice);
  RUN(any_bytes_as_events);
}

// The journal and its reader: whatever was rotated, folded, cut or killed, the reader's state is that of a straight
// replay of the same events.
#include <fcntl.h>
#include <sys/time.h>

#include <thread>

#include "fold.h"
#include "journal.h"
#include "random_events.h"
#include "replay.h"
#include "tables_equal.h"

namespace {

std::atomic<int> alarms{0};
void count_alarm(int) { alarms.fetch_add(1, std::memory_order_relaxed); }
std::atomic<bool> interrupting{false};

}  // namespace

// Stands in for the C library's: a signal comes while space is being reserved, and some kernels then give up.
extern "C" int posix_fallocate(int fd, off_t offset, off_t length) {
  const int before = alarms;
  if (interrupting) raise(SIGPROF);
  if (alarms != before) return EINTR;
  return fallocate(fd, 0, offset, length) == 0 ? 0 : errno;
}

namespace {

using namespace gpumem;

constexpr uint64_t kSegmentEvents = Journal::kSegmentEvents;
constexpr uint64_t kSegmentBytes = kSegmentEvents * sizeof(Event);
constexpr uint64_t kRoomy = 1ull << 40;

// Feeds a journal as the tracker does: the ledger fills the event in, then it is written.
class Writer {
 public:
  Writer(const std::string& directory, uint64_t budget) : journal_(std::make_unique<Journal>(directory, budget)) {}

  void write(uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
      Event event = next();
      ledger_.apply(event);
      journal_->append(event);
    }
  }
  void close() { journal_.reset(); }
  Journal& journal() { return *journal_; }
  Ledger::Tables tables() const { return test::tables_of(ledger_); }

 private:
  // Mostly allocations that come and go; the random stream adds what is rare.
  Event next() {
    ++written_;
    if (written_ % 8 == 0) return rare_.next();
    Event event{};
    event.time_ns = 1000 + written_ / 8 * 2;
    event.kind = written_ % 2 != 0 ? kAlloc : kFree;
    event.address = (1 + written_ / 2 % 512) << 20;
    event.size = 1 + written_ % 4096;
    event.stack = static_cast<uint32_t>(written_ % 16);
    return event;
  }

  Ledger ledger_;
  std::unique_ptr<Journal> journal_;
  test::RandomEvents rare_{3};
  uint64_t written_ = 0;
};

Replay read(const test::Directory& directory) {
  const auto fold = directory.files("fold.bin");
  return replay_recording(directory.files("events-"), fold.empty() ? "" : fold[0]);
}

void check_whole(const Replay& replay) {
  for (const std::string& warning : replay.warnings) test::fail(__FILE__, __LINE__, warning);
  for (size_t i = 1; i < replay.segments.size(); ++i) {
    CHECK_EQ(replay.segments[i].first, replay.segments[i - 1].first + replay.segments[i - 1].count);
  }
}

uint64_t end_of(const std::vector<SegmentInfo>& segments) {
  return segments.empty() ? 0 : segments.back().first + segments.back().count;
}

void wait_until(const std::function<bool()>& condition) {
  while (!condition()) std::this_thread::yield();  // the program's time limit ends a wait in vain
}

void an_empty_recording() {
  const test::Directory directory;
  { Writer writer(directory.path(), kRoomy); }
  const Replay replay = read(directory);
  check_whole(replay);
  CHECK_EQ(replay.tables.counters[kEvents], 0u);
  CHECK_EQ(end_of(replay.segments), 0u);
}

void rotated_segments_are_all_there() {
  const test::Directory directory;
  Writer writer(directory.path(), kRoomy);
  const uint64_t total = 3 * kSegmentEvents + 12345;
  writer.write(total);
  CHECK_EQ(end_of(writer.journal().segments()), total);
  writer.close();
  const Replay replay = read(directory);
  check_whole(replay);
  CHECK_EQ(replay.segments.size(), 4u);
  CHECK_EQ(end_of(replay.segments), total);
  test::check_same(replay.tables, writer.tables());
  // Closing gives back what was reserved and not needed, and leaves no prepared segment behind.
  CHECK_EQ(directory.files("events-").size(), 4u);
  CHECK_EQ(std::distance(std::filesystem::directory_iterator(directory.path()), {}), 4);
  CHECK_EQ(std::filesystem::file_size(directory.files("events-")[3]), kHeaderSize + 12345 * sizeof(Event));
}

void a_segment_that_is_exactly_full() {
  const test::Directory directory;
  Writer writer(directory.path(), kRoomy);
  writer.write(kSegmentEvents);
  writer.close();
  const Replay replay = read(directory);
  check_whole(replay);
  CHECK_EQ(end_of(replay.segments), kSegmentEvents);
  test::check_same(replay.tables, writer.tables());
}

void folded_segments_leave_their_state() {
  const test::Directory directory;
  Writer writer(directory.path(), 2 * kSegmentBytes);
  for (int i = 0; i < 6; ++i) {
    writer.write(kSegmentEvents);
    wait_until([&] { return writer.journal().segments().size() <= 2; });
  }
  writer.write(777);
  const auto live = writer.journal().segments();
  CHECK_EQ(end_of(live), 6 * kSegmentEvents + 777);
  CHECK(live[0].first > 0);
  writer.close();
  const Replay replay = read(directory);
  check_whole(replay);
  CHECK(replay.segments[0].first > 0);
  CHECK(!replay.series.empty());
  test::check_same(replay.tables, writer.tables());
}

// The state of the fold alone, then of what was kept: no budget may lose or count twice.
void budgets_of_every_size_agree() {
  for (const uint64_t budget : {uint64_t{0}, kSegmentBytes, 3 * kSegmentBytes}) {
    const test::Directory directory;
    Writer writer(directory.path(), budget);
    writer.write(4 * kSegmentEvents + 99);
    writer.close();
    const Replay replay = read(directory);
    check_whole(replay);
    test::check_same(replay.tables, writer.tables());
  }
}

// Files are read in the order of their names, so segments must be used in the order in which they were made, also when
// the writer is quicker than the keeper and makes one itself.
void segments_are_used_in_order() {
  const test::Directory directory;
  constexpr uint64_t kTotal = 24 * kSegmentEvents;
  {
    Journal journal(directory.path(), kRoomy);
    Event event{};
    event.kind = kSynchronize;
    for (uint64_t i = 0; i < kTotal; ++i) {
      event.time_ns = i;
      journal.append(event);
    }
  }
  const Replay replay = read(directory);
  check_whole(replay);
  CHECK_EQ(end_of(replay.segments), kTotal);
  CHECK_EQ(replay.last_ns, kTotal - 1);
}

void a_fold_that_cannot_be_written() {
  const test::Directory directory;
  CHECK_EQ(mkdir((directory / "fold.bin.tmp").c_str(), 0700), 0);
  Writer writer(directory.path(), 0);
  writer.write(4 * kSegmentEvents + 99);
  writer.close();
  const Replay replay = read(directory);
  check_whole(replay);
  CHECK_EQ(replay.segments[0].first, 0u);
  test::check_same(replay.tables, writer.tables());
}

// As recording.py does: what was folded away between the listing and the reading is read again.
Replay read_while_written(const test::Directory& directory) {
  for (;;) {
    const auto fold = directory.files("fold.bin");
    const auto segments = directory.files("events-");
    Replay replay = replay_recording(segments, fold.empty() ? "" : fold[0]);
    const bool all = std::all_of(segments.begin(), segments.end(),
                                 [](const std::string& path) { return access(path.c_str(), F_OK) == 0; });
    if (all) return replay;
  }
}

void a_reader_beside_the_writer(uint64_t budget) {
  const test::Directory directory;
  Writer writer(directory.path(), budget);
  std::atomic<uint64_t> written{0};
  std::atomic<bool> done{false};
  std::thread reader([&] {
    uint64_t seen = 0;
    while (!done) {
      const uint64_t before = written;
      const Replay replay = read_while_written(directory);
      // A segment may be prepared while we look, but nothing that was committed before may be missing.
      for (const std::string& warning : replay.warnings) test::fail(__FILE__, __LINE__, warning);
      CHECK(replay.tables.counters[kEvents] >= before);
      CHECK(replay.tables.counters[kEvents] >= seen);
      seen = replay.tables.counters[kEvents];
      test::check_consistent(replay.tables);
    }
  });
  for (int i = 0; i < 400; ++i) {
    writer.write(1000);
    written += 1000;
  }
  done = true;
  reader.join();
  writer.close();
  const Replay replay = read(directory);
  check_whole(replay);
  test::check_same(replay.tables, writer.tables());
}

void read_while_it_is_written() { a_reader_beside_the_writer(kRoomy); }
void read_while_it_is_folded() { a_reader_beside_the_writer(kSegmentBytes); }

void in_memory() {
  Writer writer("", kRoomy);
  const uint64_t total = 6 * kSegmentEvents + 5;
  writer.write(total);
  // Four segments of 8 MiB are what recording in memory may take; the last one is not full.
  wait_until([&] { return writer.journal().segments().size() <= 4; });
  const auto segments = writer.journal().segments();
  CHECK_EQ(end_of(segments), total);
  CHECK_EQ(writer.journal().lost(), 0u);
  for (const SegmentInfo& segment : segments) {
    const int fd = open(segment.path.c_str(), O_RDONLY);
    CHECK(fd >= 0);
    Event first{};
    CHECK_EQ(pread(fd, &first, sizeof first, kHeaderSize), static_cast<ssize_t>(sizeof first));
    CHECK(first.kind != 0);
    close(fd);
  }
}

void a_killed_writer_loses_nothing() {
  for (const uint64_t count : {uint64_t{1}, kSegmentEvents / 2, kSegmentEvents + 1}) {
    const test::Directory directory;
    int pipe_ends[2];
    CHECK_EQ(pipe(pipe_ends), 0);
    const int status = test::in_child([&] {
      Writer writer(directory.path(), kRoomy);
      writer.write(count);
      // Wait for the keeper to prepare the next segment, which no event has reached yet.
      if (count > kSegmentEvents / 4) {
        const char* prepared = count > kSegmentEvents ? "events-00000003.bin.new" : "events-00000002.bin.new";
        wait_until([&] { return access((directory / prepared).c_str(), F_OK) == 0; });
      }
      const Ledger::Tables tables = writer.tables();
      CHECK_EQ(write(pipe_ends[1], tables.counters, sizeof tables.counters),
               static_cast<ssize_t>(sizeof tables.counters));
      kill(getpid(), SIGKILL);
    });
    CHECK(WIFSIGNALED(status));
    CHECK_EQ(WTERMSIG(status), SIGKILL);
    uint64_t counters[kCounters];
    CHECK_EQ(::read(pipe_ends[0], counters, sizeof counters), static_cast<ssize_t>(sizeof counters));
    close(pipe_ends[0]);
    close(pipe_ends[1]);
    const Replay replay = read(directory);
    check_whole(replay);
    CHECK_EQ(end_of(replay.segments), count);
    CHECK_EQ(replay.tables.counters[kEvents], count);
    for (int i = 0; i < kCounters; ++i) CHECK_EQ(replay.tables.counters[i], counters[i]);
  }
}

// Profilers interrupt their process all the time; a reservation of space that is interrupted is no full disk.
void interrupted_by_signals() {
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = count_alarm;  // without SA_RESTART
  CHECK_EQ(sigaction(SIGPROF, &action, &before), 0);
  const test::Directory directory;
  interrupting = true;
  int error = 0;
  const std::unique_ptr<Segment> segment(
      Segment::create(directory / "events-00000001.bin", kEventMagic, sizeof(Event), 1, kSegmentBytes, error));
  interrupting = false;
  CHECK_EQ(error, 0);
  CHECK(segment != nullptr);
  CHECK_EQ(alarms.load(), 1);  // it came, afterwards
  CHECK_EQ(sigaction(SIGPROF, &before, nullptr), 0);
}

void signals_go_to_threads_of_the_program() {
  // The keeper would run a handler of Python's where nobody waits for it.
  struct sigaction action {};
  action.sa_handler = count_alarm;
  CHECK_EQ(sigaction(SIGUSR1, &action, nullptr), 0);
  const Journal journal("", kRoomy);
  sigset_t all, old;
  sigfillset(&all);
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, &all, &old), 0);
  const int before = alarms;
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, SIGUSR1);
  const timespec limit{2, 0};
  for (int i = 0; i < 300; ++i) {  // the keeper takes a moment to begin
    kill(getpid(), SIGUSR1);       // blocked here: only the keeper could take it
    std::this_thread::yield();
    CHECK_EQ(sigtimedwait(&only, nullptr, &limit), SIGUSR1);
  }
  CHECK_EQ(alarms.load(), before);
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, &old, nullptr), 0);
}

void the_series_keeps_its_extremes() {
  Series series;
  uint64_t peak = 0;
  test::Random random(9);
  for (uint64_t i = 0; i < 200000; ++i) {
    const uint64_t level = test::below(random, 1u << 30);
    peak = std::max(peak, level);
    series.add(0, i * 3000000, level);
  }
  const std::vector<SeriesRow> rows = series.rows();
  CHECK(rows.size() <= Series::kBuckets);
  uint64_t highest = 0;
  for (const SeriesRow& row : rows) highest = std::max(highest, row.max_bytes);
  CHECK_EQ(highest, peak);
  for (size_t i = 1; i < rows.size(); ++i) CHECK(rows[i - 1].begin_ns < rows[i].begin_ns);
}

}  // namespace

int main() {
  test::limit_time(240);
  RUN(an_empty_recording);
  RUN(rotated_segments_are_all_there);
  RUN(a_segment_that_is_exactly_full);
  RUN(folded_segments_leave_their_state);
  RUN(budgets_of_every_size_agree);
  RUN(segments_are_used_in_order);
  RUN(a_fold_that_cannot_be_written);
  RUN(read_while_it_is_written);
  RUN(read_while_it_is_folded);
  RUN(in_memory);
  RUN(a_killed_writer_loses_nothing);
  RUN(interrupted_by_signals);
  RUN(signals_go_to_threads_of_the_program);
  RUN(the_series_keeps_its_extremes);
}

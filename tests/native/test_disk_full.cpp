// A disk that is full, from the beginning or from some moment on: recording goes on in memory, and what was written
// stays. The disk is a file system of a few megabytes in a mount namespace of our own.
#include <sched.h>

#include <fstream>
#include <thread>

#include "fold.h"
#include "journal.h"
#include "record_log.h"
#include "replay.h"
#include "tables_equal.h"

namespace {

using namespace gpumem;

constexpr uint64_t kSegmentEvents = Journal::kSegmentEvents;
constexpr uint64_t kRoomy = 1ull << 40;

// Mounts an empty file system of `megabytes` at `where`, seen by this process only.
bool mount_small_disk(const std::string& where, int megabytes) {
  const int flags = getuid() == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER;
  if (unshare(flags) != 0) return false;
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  const std::string options = "size=" + std::to_string(megabytes) + "m,mode=700";
  return mount("none", where.c_str(), "tmpfs", 0, options.c_str()) == 0;
}

constexpr int kCannotMount = 77;

// Runs `body` in a child that sees a small disk at the path it is given.
void on_small_disk(int megabytes, const std::function<void(const std::string&)>& body) {
  const test::Directory directory;
  const int status = test::in_child([&] {
    if (!mount_small_disk(directory.path(), megabytes)) std::_Exit(kCannotMount);
    body(directory.path());
  });
  CHECK(WIFEXITED(status));
  if (WEXITSTATUS(status) == kCannotMount) {
    std::printf("    NOT RUN: this system allows no mount namespaces\n");
    return;
  }
  CHECK_EQ(WEXITSTATUS(status), 0);
}

Event nth(uint64_t i) {
  Event event{};
  event.time_ns = i + 1;
  event.kind = i % 2 == 0 ? kAlloc : kFree;
  event.address = (1 + i / 2 % 100) << 20;
  event.size = 100;
  return event;
}

void write(Journal& journal, Ledger& ledger, uint64_t begin, uint64_t end) {
  for (uint64_t i = begin; i < end; ++i) {
    Event event = nth(i);
    ledger.apply(event);
    journal.append(event);
  }
}

using test::segment_files;

void full_from_the_beginning() {
  on_small_disk(1, [](const std::string& disk) {
    Journal journal(disk, kRoomy);
    CHECK_EQ(journal.error(), ENOSPC);
    Ledger ledger;
    write(journal, ledger, 0, 1000);
    CHECK_EQ(journal.lost(), 0u);
    const auto segments = journal.segments();
    CHECK_EQ(segments.size(), 1u);
    CHECK_EQ(segments[0].count, 1000u);
    CHECK(segment_files(disk, "events-").empty());
  });
}

// Three segments fit. Memory takes over, keeps to its own budget, and leaves the disk alone.
void full_after_a_while() {
  on_small_disk(25, [](const std::string& disk) {
    const uint64_t total = 12 * kSegmentEvents + 10;
    Ledger ledger;
    {
      Journal journal(disk, kRoomy);
      write(journal, ledger, 0, total);
      CHECK_EQ(journal.error(), ENOSPC);
      CHECK_EQ(journal.lost(), 0u);
      while (journal.segments().size() > 4) std::this_thread::yield();
      const auto live = journal.segments();
      CHECK_EQ(live.back().first + live.back().count, total);
      CHECK_EQ(segment_files(disk, "events-").size(), 3u);
    }
    const auto folds = segment_files(disk, "fold.bin");
    const Replay replay = replay_recording(segment_files(disk, "events-"), folds.empty() ? "" : folds[0]);
    // Every event that reached the disk is still there, in order.
    uint64_t next = 0;
    for (const SegmentInfo& segment : replay.segments) {
      CHECK_EQ(segment.first, next);
      next += segment.count;
    }
    CHECK_EQ(next, 3 * kSegmentEvents);
    CHECK(replay.tables.counters[kEvents] >= next);
    test::check_consistent(replay.tables);
  });
}

void records_on_a_full_disk() {
  on_small_disk(5, [](const std::string& disk) {
    RecordLog log;
    log.open(disk);
    const std::string payload(100000, 'p');
    for (int i = 0; i < 100; ++i) CHECK(log.append(kNoteRecord, payload) == payload);
    CHECK_EQ(log.error(), ENOSPC);
    CHECK_EQ(log.read(0).size(), log.size());
    log.close();
    CHECK_EQ(segment_files(disk, "tables-").size(), 1u);
  });
}

// A limit on the size of files forbids memory files too: then, and only then, events are lost, and counted.
void a_limit_on_file_sizes() {
  const test::Directory directory;
  const int status = test::in_child([&] {
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    const rlimit limit{4096, 4096};
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
    Journal journal(directory.path(), kRoomy);
    CHECK_EQ(journal.error(), EFBIG);
    Ledger ledger;
    write(journal, ledger, 0, 100);
    CHECK_EQ(journal.count(), 100u);
    CHECK_EQ(journal.lost(), 100u);
    CHECK(journal.segments().empty());
  });
  CHECK_EQ(status, 0);
}

void a_directory_that_is_gone() {
  const std::string nowhere = test::Directory().path() + "/none";
  Journal journal(nowhere, kRoomy);
  CHECK_EQ(journal.error(), ENOENT);
  Ledger ledger;
  write(journal, ledger, 0, 10);
  CHECK_EQ(journal.lost(), 0u);
  RecordLog log;
  log.open(nowhere);
  CHECK(log.append(kNoteRecord, "text") == "text");
  CHECK_EQ(log.error(), ENOENT);
}

}  // namespace

int main() {
  test::limit_time(120);
  RUN(full_from_the_beginning);
  RUN(full_after_a_while);
  RUN(records_on_a_full_disk);
  RUN(a_limit_on_file_sizes);
  RUN(a_directory_that_is_gone);
}

// The tables that events refer to: record log, stacks, graphs, callers.
#include <dlfcn.h>

#include "caller.h"
#include "check.h"
#include "crc32.h"
#include "graph_table.h"
#include "record_log.h"
#include "stack_table.h"

namespace {

using namespace gpumem;

struct Record {
  uint16_t type;
  std::string payload;
};

std::vector<Record> parse(const std::string& bytes) {
  std::vector<Record> records;
  for (size_t at = 0; at < bytes.size();) {
    RecordHeader header;
    CHECK(at + sizeof header <= bytes.size());
    std::memcpy(&header, bytes.data() + at, sizeof header);
    at += sizeof header;
    CHECK(at + header.length <= bytes.size());
    records.push_back({header.type, bytes.substr(at, header.length)});
    CHECK_EQ(crc32(bytes.data() + at, header.length), header.crc);
    at += (header.length + 3) & ~3u;
  }
  return records;
}

std::string on_disk(const test::Directory& directory) {
  std::string bytes;
  uint32_t number = 0;
  for (const std::string& path : directory.files("tables-")) {
    const std::string file = test::read_file(path);
    std::string why;
    CHECK(check_header(file.data(), kTableMagic, 0, why));
    SegmentHeader header{};
    std::memcpy(static_cast<void*>(&header), file.data(), sizeof header);
    CHECK_EQ(header.number, ++number);
    CHECK_EQ(header.first, bytes.size());
    const std::string payload = file.substr(kHeaderSize, header.committed);
    CHECK_EQ(payload.size(), header.committed.load());
    if (header.sealed == 1) CHECK_EQ(crc32(payload.data(), payload.size()), header.checksum);
    bytes += payload;
  }
  return bytes;
}

std::string random_payload(test::Random& random, size_t limit) {
  std::string payload(test::below(random, limit), '\0');
  for (char& byte : payload) byte = static_cast<char>(random());
  return payload;
}

void records_come_back_as_they_were() {
  test::Random random(1);
  const test::Directory directory;
  RecordLog log;
  log.append(kCodeRecord, "before the recording began");
  log.open(directory.path());
  std::vector<std::string> payloads = {"before the recording began"};
  std::vector<std::string_view> kept;
  uint64_t middle = 0;
  size_t records_before_middle = 0;
  for (int i = 0; i < 400; ++i) {
    payloads.push_back(random_payload(random, test::one_in(random, 20) ? RecordLog::kMaxPayload : 300));
    kept.push_back(log.append(kCodeRecord, payloads.back()));
    if (i == 200) {
      middle = log.size();
      records_before_middle = payloads.size();
    }
  }
  for (size_t i = 0; i < kept.size(); ++i) CHECK(kept[i] == payloads[i + 1]);  // nothing moved
  CHECK_EQ(log.error(), 0);
  const std::vector<Record> all = parse(log.read(0));
  CHECK_EQ(all.size(), payloads.size());
  for (size_t i = 0; i < all.size(); ++i) CHECK(all[i].payload == payloads[i]);
  const std::vector<Record> tail = parse(log.read(middle));
  CHECK_EQ(tail.size(), payloads.size() - records_before_middle);
  CHECK(log.read(log.size()).empty());
  CHECK(directory.files("tables-").size() > 1);
  CHECK(on_disk(directory) == log.read(0));  // while it is written
  log.close();
  CHECK(on_disk(directory) == log.read(0));

  // The next recording of the same process begins with everything that ids may refer to.
  const test::Directory next;
  log.open(next.path());
  log.append(kNoteRecord, "later");
  CHECK(on_disk(next) == log.read(0));
  log.close();
}

// Ids stay valid from one recording to the next; what happened in the earlier one stays there.
void a_recording_tells_of_itself_only() {
  const test::Directory first;
  const test::Directory second;
  RecordLog log;
  log.open(first.path());
  const std::string_view code = log.append(kCodeRecord, "code");
  log.append(kSpanRecord, "an earlier cell");
  log.append(kNodeRecord, "node");
  for (int i = 0; i < 10000; ++i) log.append(kNoteRecord, std::string(100, 'n'));
  CHECK(log.size() > 1000000);
  log.open(second.path());
  CHECK(log.size() < 600000);  // memory that only told of the earlier one is given back
  CHECK(code == "code");
  log.append(kNoteRecord, "now");
  std::string seen;
  for (const Record& record : parse(log.read(0))) {
    if (record.type != kForgottenRecord) seen += record.payload + ";";
  }
  CHECK(seen == "code;node;now;");
  seen.clear();
  for (const Record& record : parse(on_disk(second))) seen += record.payload + ";";
  CHECK(seen == "code;node;now;");
  const uint64_t end = log.size();
  log.append(kNoteRecord, "later");
  CHECK_EQ(parse(log.read(end)).size(), 1u);
  log.close();
}

void a_payload_that_is_too_large_is_refused() {
  RecordLog log;
  const std::string largest(RecordLog::kMaxPayload, 'x');
  CHECK(log.append(kNoteRecord, largest) == largest);
  const uint64_t size = log.size();
  CHECK(log.append(kNoteRecord, largest + "x").empty());
  CHECK_EQ(log.size(), size);
}

void equal_code_has_one_id() {
  RecordLog log;
  StackTable stacks(log);
  int first = 0;
  int second = 0;
  const uint32_t id = stacks.add_code(&first, 1, "cell.py", "f", "lines");
  CHECK_EQ(stacks.find_code(&first), id);
  CHECK_EQ(stacks.add_code(&second, 1, "cell.py", "f", "lines"), id);
  CHECK(stacks.add_code(&second, 2, "cell.py", "f", "lines") != id);
  // Names that only add up to the same bytes are not the same.
  CHECK(stacks.add_code(&second, 1, "cell.pyf", "", "lines") != id);
  CHECK_EQ(stacks.code_count(), 3u);
}

void a_reused_address_is_new_code() {
  RecordLog log;
  StackTable stacks(log);
  int address = 0;
  const uint32_t old = stacks.add_code(&address, 1, "a.py", "old", "");
  CHECK(stacks.forget_code(&address));
  CHECK(!stacks.forget_code(&address));
  CHECK_EQ(stacks.find_code(&address), 0u);
  CHECK(stacks.add_code(&address, 1, "a.py", "new", "") != old);
  stacks.forget_all_code();
  CHECK_EQ(stacks.find_code(&address), 0u);
}

void huge_code_is_kept_without_its_lines() {
  RecordLog log;
  StackTable stacks(log);
  int a = 0;
  const std::string huge(2 << 20, 'n');
  const uint32_t id = stacks.add_code(&a, 1, huge, huge, huge);
  const std::vector<Record> records = parse(log.read(0));
  CHECK_EQ(records.size(), 1u);
  uint32_t words[5];
  std::memcpy(words, records[0].payload.data(), sizeof words);
  CHECK_EQ(words[0], id);
  CHECK_EQ(words[2], 1u << 16);
  CHECK_EQ(words[3], 1u << 16);
  CHECK_EQ(words[4], 0u);
}

void nodes_are_interned() {
  RecordLog log;
  StackTable stacks(log);
  test::Random random(4);
  std::vector<std::vector<uint32_t>> paths;
  std::vector<uint32_t> ids;
  for (int i = 0; i < 3000; ++i) {
    std::vector<uint32_t> path;
    uint32_t node = 0;
    for (int depth = 0; depth < 12; ++depth) {
      const auto code = static_cast<uint32_t>(1 + test::below(random, 3));
      const auto lasti = static_cast<int32_t>(test::below(random, 2)) - 1;
      path.push_back(code * 16 + static_cast<uint32_t>(lasti + 1));
      node = stacks.node(node, code, lasti);
    }
    paths.push_back(path);
    ids.push_back(node);
  }
  for (size_t i = 0; i < paths.size(); i += 37) {
    for (size_t j = 0; j < paths.size(); ++j) CHECK_EQ(paths[i] == paths[j], ids[i] == ids[j]);
  }
  uint32_t expected = 0;
  for (const Record& record : parse(log.read(0))) {
    uint32_t words[4];
    CHECK_EQ(record.payload.size(), sizeof words);
    std::memcpy(words, record.payload.data(), sizeof words);
    CHECK_EQ(words[0], ++expected);
    CHECK(words[1] < words[0]);
  }
  CHECK_EQ(expected, stacks.node_count());
}

// Nodes of the same hash are told apart by what they are.
void nodes_of_the_same_hash() {
  constexpr uint64_t kFactor = 0xD6E8FEB86659FD93ull;
  uint64_t inverse = kFactor;  // modulo 2^64, by Newton's method
  for (int i = 0; i < 6; ++i) inverse *= 2 - kFactor * inverse;
  RecordLog log;
  StackTable stacks(log);
  const uint64_t first = (1ull << 32) | 1;
  std::vector<uint32_t> ids = {stacks.node(1, 1, 0)};
  for (uint32_t lasti = 1; lasti < 20; ++lasti) {
    const uint64_t other = inverse * ((first * kFactor) ^ lasti);
    ids.push_back(
        stacks.node(static_cast<uint32_t>(other >> 32), static_cast<uint32_t>(other), static_cast<int32_t>(lasti)));
  }
  CHECK_EQ(stacks.node_count(), 20u);
  std::sort(ids.begin(), ids.end());
  CHECK(std::unique(ids.begin(), ids.end()) == ids.end());
  CHECK_EQ(stacks.node(1, 1, 0), 1u);
}

Event node(uint8_t kind, uint64_t graph, uint64_t address, uint64_t size = 0) {
  Event event{};
  event.kind = kind;
  event.handle = graph;
  event.address = address;
  event.size = size;
  return event;
}

void graphs_launch_what_they_leave() {
  GraphTable graphs;
  graphs.add(node(kGraphNodeAlloc, 1, 100, 10));
  graphs.add(node(kGraphNodeAlloc, 1, 200, 20));
  graphs.add(node(kGraphNodeFree, 1, 200));
  graphs.add(node(kGraphNodeFree, 1, 300));
  graphs.instantiate(50, 1);
  graphs.add(node(kGraphNodeAlloc, 1, 400, 40));  // too late for the executable
  CHECK(graphs.launch(1).empty());                // a graph is no executable
  const std::vector<Event> events = graphs.launch(50);
  CHECK_EQ(events.size(), 2u);
  CHECK_EQ(events[0].kind, kAllocGraph);
  CHECK_EQ(events[0].address, 100u);
  CHECK_EQ(events[1].kind, kFreeGraph);
  CHECK_EQ(events[1].address, 300u);

  graphs.clone(2, 1);
  graphs.destroy(1);
  graphs.instantiate(51, 2);
  CHECK_EQ(graphs.launch(51).size(), 3u);
  CHECK_EQ(graphs.launch(50).size(), 2u);  // outlives its graph
  graphs.destroy_executable(50);
  CHECK(graphs.launch(50).empty());
  graphs.instantiate(51, 77);  // the handle of an executable now belongs to a graph without memory
  CHECK(graphs.launch(51).empty());
}

// The caller is found behind as many frames as the driver may have of its own.
__attribute__((noinline)) uint16_t ask(CallerCache& callers, LibraryTable& libraries, uint32_t function, int depth) {
  if (depth > 0) {
    const uint16_t found = ask(callers, libraries, function, depth - 1);
    __asm__ volatile("" ::: "memory");  // no tail call: the frame must be there
    return found;
  }
  return callers.find(function, libraries);
}

void the_caller_is_this_program() {
  RecordLog log;
  std::mutex mutex;
  LibraryTable libraries(log, mutex);
  CallerCache callers;
  warm_up_unwinder();
  const uint16_t id = ask(callers, libraries, 1, 3);
  CHECK(id != 0 && id != LibraryTable::kSkip);
  for (int depth = 0; depth < 20; ++depth) {
    for (int again = 0; again < 3; ++again) CHECK_EQ(ask(callers, libraries, 7, depth), id);
  }
  const std::vector<Record> records = parse(log.read(0));
  CHECK_EQ(records.size(), 1u);
  CHECK_EQ(records[0].type, kLibraryRecord);
  CHECK(records[0].payload.find("test_records") != std::string::npos);
  CHECK_EQ(libraries.find(dlsym(RTLD_DEFAULT, "getpid")), LibraryTable::kSkip);
  CHECK_EQ(libraries.find(nullptr), 0u);
}

}  // namespace

int main() {
  test::limit_time(120);
  RUN(records_come_back_as_they_were);
  RUN(a_recording_tells_of_itself_only);
  RUN(a_payload_that_is_too_large_is_refused);
  RUN(equal_code_has_one_id);
  RUN(a_reused_address_is_new_code);
  RUN(huge_code_is_kept_without_its_lines);
  RUN(nodes_are_interned);
  RUN(nodes_of_the_same_hash);
  RUN(graphs_launch_what_they_leave);
  RUN(the_caller_is_this_program);
}

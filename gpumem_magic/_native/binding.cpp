// The Python face of the core: functions that exchange integers, text and bytes.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>

#include "binding_graph.h"
#include "frame_walker.h"
#include "replay.h"
#include "sampler.h"
#include "tracker.h"

namespace nb = nanobind;
using namespace gpumem;

namespace {

template <class Row>
nb::bytes rows(const std::vector<Row>& table) {
  return nb::bytes(reinterpret_cast<const char*>(table.data()), table.size() * sizeof(Row));
}

nb::dict tables_dict(const Ledger::Tables& tables) {
  nb::dict dict;
  dict["allocations"] = rows(tables.allocations);
  dict["mappings"] = rows(tables.mappings);
  dict["sites"] = rows(tables.sites);
  dict["meters"] = rows(tables.meters);
  dict["spans"] = rows(tables.spans);
  dict["span_meters"] = rows(tables.span_meters);
  dict["counters"] = nb::bytes(reinterpret_cast<const char*>(tables.counters), sizeof tables.counters);
  return dict;
}

nb::list segment_list(const std::vector<SegmentInfo>& segments) {
  nb::list list;
  for (const SegmentInfo& segment : segments) list.append(nb::make_tuple(segment.path, segment.first, segment.count));
  return list;
}

nb::dict snapshot(bool allocations) {
  Tracker::Copy copy;
  {
    const nb::gil_scoped_release release;
    Tracker::instance().copy(copy, allocations);
  }
  nb::dict dict = tables_dict(copy.tables);
  dict["series"] = rows(copy.series);
  dict["time_ns"] = copy.time_ns;
  return dict;
}

nb::dict replay(const std::vector<std::string>& paths, const std::string& fold) {
  Replay result;
  {
    const nb::gil_scoped_release release;
    result = replay_recording(paths, fold);
  }
  nb::dict dict = tables_dict(result.tables);
  dict["series"] = rows(result.series);
  dict["segments"] = segment_list(result.segments);
  dict["warnings"] = result.warnings;
  dict["time_ns"] = result.last_ns;
  return dict;
}

// ---- memory over time -----------------------------------------------------------------------------------------------

constexpr uint64_t kShortestIntervalNs = 10000000;
constexpr uint64_t kLongestIntervalNs = 1000000000;

void start_sampling(const std::vector<std::tuple<uint8_t, std::string>>& devices, uint64_t interval_ns) {
  if (interval_ns < kShortestIntervalNs || interval_ns > kLongestIntervalNs) {
    throw nb::value_error("the interval is between 10 ms and 1 s");
  }
  std::vector<Sampler::Device> sampled;
  sampled.reserve(devices.size());
  for (const auto& [ordinal, uuid] : devices) sampled.push_back({ordinal, uuid});
  const nb::gil_scoped_release release;
  Sampler::instance().start(std::move(sampled), interval_ns);
}

nb::dict history(uint64_t since) {
  Sampler::News news;
  {
    const nb::gil_scoped_release release;
    news = Sampler::instance().since(since);
  }
  nb::dict dict;
  dict["rows"] = rows(news.rows);
  dict["open"] = rows(news.open);
  dict["host"] = rows(news.host);
  dict["host_open"] = rows(news.host_open);
  dict["next"] = news.next;
  return dict;
}

nb::dict history_dict(const HistoryCopy& copy) {
  nb::dict dict;
  dict["rows"] = rows(copy.rows);
  dict["host"] = rows(copy.host);
  return dict;
}

nb::dict history_levels() {
  HistoryCopy copy;
  uint64_t next = 0;
  {
    const nb::gil_scoped_release release;
    next = Sampler::instance().copy(copy);
  }
  nb::dict dict = history_dict(copy);
  dict["next"] = next;
  return dict;
}

nb::dict read_history_file(const std::string& path) {
  HistoryCopy copy;
  {
    const nb::gil_scoped_release release;
    copy = read_history(path);
  }
  nb::dict dict = history_dict(copy);
  dict["warnings"] = copy.warnings;
  return dict;
}

template <class Row>
std::vector<Row> rows_of(const nb::bytes& bytes) {
  if (bytes.size() % sizeof(Row) != 0) throw nb::value_error("rows come whole");
  std::vector<Row> table(bytes.size() / sizeof(Row));
  if (!table.empty()) std::memcpy(static_cast<void*>(table.data()), bytes.c_str(), bytes.size());
  return table;
}

nb::dict health() {
  const Health health = Tracker::instance().health();
  nb::dict dict;
  dict["callbacks"] = health.callbacks;
  dict["sampled"] = health.sampled;
  dict["sampled_ns"] = health.sampled_ns;
  dict["stacks"] = health.stacks;
  dict["codes"] = health.codes;
  dict["record_bytes"] = health.record_bytes;
  dict["events"] = health.events;
  dict["lost_events"] = health.lost_events;
  dict["journal_error"] = health.journal_error;
  dict["record_error"] = health.record_error;
  dict["history_error"] = Sampler::instance().error();
  dict["subscribed"] = health.subscribed != 0;
  dict["on"] = health.on != 0;
  dict["multiple"] = health.multiple != 0;
  return dict;
}

bool watch() {
  Tracker::instance().forget_code();
  return watch_code([](const void* code) { Tracker::instance().code_destroyed(code); });
}

}  // namespace

NB_MODULE(_core, m) {
  m.doc() = "Native core of gpumem_magic: CUPTI callbacks, stack walk, ledger and journal.";
  m.def(
      "subscribe",
      [](const std::string& path, uint32_t groups) {
        const nb::gil_scoped_release release;
        return Tracker::instance().subscribe(path.c_str(), groups);
      },
      nb::arg("cupti_path"), nb::arg("groups"),
      "Subscribe to CUPTI. 0, a CUPTI result, -1 no CUPTI, -2 no driver, -3 missing symbol, -1000 - CUresult of "
      "cuInit.");
  m.def(
      "unsubscribe",
      [] {
        const nb::gil_scoped_release release;
        return Tracker::instance().unsubscribe();
      },
      "Give the subscription back. 0 or a CUPTI result.");
  m.def(
      "turn", [](bool on) { Tracker::instance().turn(on); }, nb::arg("on"), "Record, or let callbacks pass.");
  m.def(
      "configure",
      [](int depth, bool stacks) {
        Tracker::instance().set_depth(depth);
        Tracker::instance().use_stacks(stacks);
      },
      nb::arg("depth"), nb::arg("stacks"), "Frames kept per stack, and whether stacks are taken at all.");
  m.def(
      "begin_recording",
      [](const std::string& directory, uint64_t budget) {
        const nb::gil_scoped_release release;
        Tracker::instance().begin_recording(directory, budget);
        Sampler::instance().begin_recording(directory);
      },
      nb::arg("directory"), nb::arg("budget_bytes"), "Start an empty ledger, journal and history; in memory for ''.");
  m.def(
      "end_recording",
      [] {
        const nb::gil_scoped_release release;
        Tracker::instance().end_recording();
        Sampler::instance().end_recording();
      },
      "Finish and close the journal and the history.");
  m.def("watch_code", watch, "Follow the death of code objects. False when this interpreter offers no way.");
  m.def("unwatch_code", &unwatch_code, "Stop following code objects.");
  m.def("stop_walking", &stop_walking, "No stacks from here on: the interpreter is about to go away.");
  m.def(
      "current_stack", [] { return Tracker::instance().current_stack(); }, "Stack id of the calling thread.");
  m.def(
      "begin_span",
      [](uint32_t parent, const std::string& payload, bool foreground) {
        return Tracker::instance().begin_span(parent, payload, foreground);
      },
      nb::arg("parent"), nb::arg("payload"), nb::arg("foreground"), "Open a span on this thread; returns its id.");
  m.def(
      "end_span",
      [](uint32_t id, uint32_t parent, const std::string& payload, bool foreground) {
        Tracker::instance().end_span(id, parent, payload, foreground);
      },
      nb::arg("id"), nb::arg("parent"), nb::arg("payload"), nb::arg("foreground"), "Close a span of this thread.");
  m.def("adopt_span", &Tracker::adopt_span, nb::arg("id"), "This thread was started by that span.");
  m.def("current_span", &Tracker::current_span, "Span that an allocation made here and now would belong to.");
  m.def(
      "note", [](const std::string& payload) { Tracker::instance().note(payload); }, nb::arg("payload"),
      "Keep a note in the recording.");
  m.def(
      "mark", [](uint8_t kind) { Tracker::instance().mark(kind); }, nb::arg("kind"), "Record an event without data.");
  m.def(
      "heartbeat",
      [] {
        const nb::gil_scoped_release release;
        return Tracker::instance().heartbeat();
      },
      "True when our own driver call is reported to us.");
  m.def(
      "reconcile",
      [] {
        const nb::gil_scoped_release release;
        return Tracker::instance().reconcile();
      },
      "End allocations that the driver no longer knows; returns how many.");
  m.def("snapshot", snapshot, nb::arg("allocations") = true,
        "Tables of the live ledger, taken at one moment; without the live allocations when they are not wanted.");
  m.def("start_sampling", start_sampling, nb::arg("devices"), nb::arg("interval_ns"),
        "Take a row of each device (ordinal, UUID) and of the host each interval, from now on.");
  m.def(
      "stop_sampling",
      [] {
        const nb::gil_scoped_release release;
        Sampler::instance().stop();
      },
      "Take no more rows. Those that there are stay.");
  m.def(
      "sample_now",
      [](double timeout_s) {
        const nb::gil_scoped_release release;
        return Sampler::instance().sample_now(timeout_s);
      },
      nb::arg("timeout_s"), "True once there is a sample that began after this call did; False when it took too long.");
  m.def(
      "report_frameworks",
      [](uint8_t device, int64_t torch_allocated, int64_t torch_reserved, int64_t cupy_used) {
        const nb::gil_scoped_release release;
        Sampler::instance().report_frameworks(device, torch_allocated, torch_reserved, cupy_used);
      },
      nb::arg("device"), nb::arg("torch_allocated"), nb::arg("torch_reserved"), nb::arg("cupy_used"),
      "What the frameworks count, for the rows from now on; -1 where they do not tell.");
  m.def("history", history, nb::arg("since"),
        "Samples from that index on (the latest 1024 at most), and the rows that are being made now.");
  m.def("history_levels", history_levels, "All rows of all levels.");
  m.def(
      "wait_for_news",
      [](uint64_t events, uint64_t index, double timeout_s) {
        const nb::gil_scoped_release release;
        const auto now = Sampler::instance().wait_for_news(events, index, timeout_s);
        return std::tuple<uint64_t, uint64_t>(now.first, now.second);
      },
      nb::arg("events"), nb::arg("index"), nb::arg("timeout_s"),
      "The number of events and the index of the next sample, once one of them is not what was given.");
  m.def("read_history", read_history_file, nb::arg("path"), "The history of a recording, and what is wrong with it.");
  m.def(
      "replay_history",
      [](const nb::bytes& samples, const nb::bytes& host) {
        return history_dict(replay_history(rows_of<HistoryRow>(samples), rows_of<HostRow>(host)));
      },
      nb::arg("samples"), nb::arg("host"), "Levels after these samples, from an empty history.");
  m.def(
      "read_records",
      [](uint64_t from) {
        const std::string bytes = Tracker::instance().read_records(from);
        return nb::bytes(bytes.data(), bytes.size());
      },
      nb::arg("start"), "Table records from that byte offset on.");
  m.def(
      "segments", [] { return segment_list(Tracker::instance().segments()); },
      "(path, first index, count) of each journal segment.");
  m.def("health", health, "What the tracker says of itself.");
  m.def(
      "other_subscriber", [] { return std::string(Tracker::instance().other_subscriber()); },
      "Who held CUPTI when we were refused, where CUPTI tells.");
  m.def("replay", replay, nb::arg("paths"), nb::arg("fold"), "Read the event segments of a recording.");
  m.def(
      "table_segment_bytes",
      [](const nb::bytes& segment) -> int64_t {
        std::string why;
        if (segment.size() < kHeaderSize || !check_header(segment.c_str(), kTableMagic, 0, why)) return -1;
        const auto* header = reinterpret_cast<const SegmentHeader*>(segment.c_str());
        return static_cast<int64_t>(std::min(header->committed.load(), header->capacity));
      },
      nb::arg("segment"), "Committed payload bytes of a table segment; -1 when it is none.");
  m.def(
      "replay_events",
      [](const nb::bytes& events) {
        if (events.size() % sizeof(Event) != 0) throw nb::value_error("events come in whole records of 64 bytes");
        return tables_dict(replay_events(events.c_str(), events.size() / sizeof(Event)));
      },
      nb::arg("events"), "Tables after these events, from an empty ledger.");
  bind_graph(m);
}

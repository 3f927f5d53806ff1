// Reads the event segments of a recording into a ledger.
#pragma once

#include <string>
#include <vector>

#include "journal.h"
#include "ledger.h"
#include "series.h"

namespace gpumem {

struct Replay {
  Ledger::Tables tables;
  std::vector<SeriesRow> series;
  std::vector<SegmentInfo> segments;
  std::vector<std::string> warnings;  // sentences about what could not be read
  uint64_t last_ns = 0;
};

// `paths` in order of their numbers; `fold` may be empty. Damage ends in a warning, never in an exception.
Replay replay_recording(const std::vector<std::string>& paths, const std::string& fold);

// The ledger's state after `count` events at `events`.
Ledger::Tables replay_events(const void* events, size_t count);

}  // namespace gpumem

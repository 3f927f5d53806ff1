#include "ledger.h"

#include <algorithm>
#include <cstring>

namespace gpumem {

Ledger::Ledger() : keys_{HashMap(1 << 14), HashMap(64), HashMap(64), HashMap(64), HashMap(64)} {
  entries_.reserve(1 << 12);
  sites_.reserve(1 << 10);
  site_chain_.reserve(1 << 10);
  slots_.fill(-1);
}

size_t Ledger::slot_for(uint8_t device) {
  if (slots_[device] < 0) {
    slots_[device] = static_cast<int16_t>(meters_.size());
    slot_devices_.push_back(device);
    meters_.emplace_back();
    for (const auto& span : open_) {
      span->meters.emplace_back();
      for (SpanMeter& meter : span->meters.back()) meter.peak_ns = span->begin_ns;
    }
  }
  return static_cast<size_t>(slots_[device]);
}

void Ledger::apply(Event& event) {
  if (event.status != 0) {
    ++counters_[kEvents];
    ++counters_[kFailures];
    ++sites_[site_for(event)].failed_count;
    return;
  }
  if (is_birth(event.kind)) {
    birth(event);
  } else if (is_death(event.kind)) {
    death(event);
  } else {
    switch (event.kind) {
      case kMap:
        map(event);
        break;
      case kUnmap:
        unmap(event);
        break;
      case kRetainPhysical:
        retain(event);
        break;
      case kContextDestroy:
        destroy_context(event);
        break;
      case kSpanBegin:
        begin_span(event);
        break;
      case kSpanEnd:
        end_span(event);
        break;
      case kGapBegin:
        ++counters_[kGaps];
        break;
      case kContextCreate:
        ++footprints_[event.device].contexts;
        break;
      case kModuleLoad:
        ++footprints_[event.device].modules;
        break;
      case kGapEnd:
      case kPoolCreate:
      case kPoolDestroy:
      case kPoolTrim:
      case kModuleUnload:
      case kGraphNodeAlloc:
      case kGraphNodeFree:
      case kGraphLaunch:
      case kCopy:
      case kSet:
      case kSynchronize:
        break;
      default:
        ++counters_[kUnknownKinds];
    }
  }
  ++counters_[kEvents];  // last: the serial of an event is the number of events before it
}

// ---- sites ----------------------------------------------------------------------------------------------------------

uint32_t Ledger::site_for(const Event& event) {
  SiteRow key{};
  key.stack = event.stack;
  key.cell = event.cell;
  key.library = event.library;
  key.kind = event.kind;
  key.device = event.device;
  return site_for(key);
}

uint32_t Ledger::site_for(const SiteRow& key) {
  const uint64_t hash =
      ((static_cast<uint64_t>(key.stack) << 32) | key.cell) * 0xD6E8FEB86659FD93ull ^
      ((static_cast<uint64_t>(key.library) << 16) | (static_cast<uint64_t>(key.kind) << 8) | key.device);
  const uint32_t first = site_index_.find(hash);
  for (uint32_t i = first; i != kNone32; i = site_chain_[i]) {
    const SiteRow& site = sites_[i];
    if (site.stack == key.stack && site.cell == key.cell && site.library == key.library && site.kind == key.kind &&
        site.device == key.device) {
      return i;
    }
  }
  const uint32_t index = static_cast<uint32_t>(sites_.size());
  sites_.push_back(key);
  site_chain_.push_back(first);
  site_index_.insert(hash, index);
  return index;
}

// ---- births and deaths ----------------------------------------------------------------------------------------------

uint32_t Ledger::new_entry() {
  if (!free_entries_.empty()) {
    const uint32_t index = free_entries_.back();
    free_entries_.pop_back();
    return index;
  }
  entries_.emplace_back();
  return static_cast<uint32_t>(entries_.size() - 1);
}

void Ledger::birth(Event& event) {
  if (event.address == 0) {
    ++counters_[kNullBirths];
    return;
  }
  HashMap& keys = keys_[space_of(event.kind)];
  const uint32_t old = keys.find(event.address);
  if (old != kNone32) {
    const uint8_t old_kind = entries_[old].row.kind;
    const bool counted = (event.kind == kImportIpc && old_kind == kImportIpc) || event.kind == kImportPhysical;
    if (counted) {
      ++entries_[old].row.references;
      return;
    }
    if ((event.flags & kReused) == 0) ++counters_[kMissedFrees];
    end_or_orphan(old);
  }
  const uint32_t index = new_entry();
  Entry& entry = entries_[index];
  entry = Entry{};
  AllocationRow& row = entry.row;
  row.address = event.address;
  row.size = event.size;
  row.birth_ns = event.time_ns;
  row.handle = event.handle;
  row.serial = next_serial();
  row.references = 1;
  row.stack = event.stack;
  row.cell = event.cell;
  row.thread = event.thread;
  row.context = event.context;
  row.stream = event.stream;
  row.library = event.library;
  row.function = event.function;
  row.kind = event.kind;
  row.device = event.device;
  row.flags = event.flags;
  entry.live = true;
  entry.keyed = true;
  entry.site = site_for(event);
  keys.insert(event.address, index);
  ++live_count_;
  ++counters_[kBirths];

  SiteRow& site = sites_[entry.site];
  ++site.allocated_count;
  site.allocated_bytes += row.size;
  site.peak_bytes = std::max(site.peak_bytes, site.allocated_bytes - site.freed_bytes);
  add_to_meters(row, event.time_ns);
  add_to_footprint(row);
}

void Ledger::add_to_meters(const AllocationRow& row, uint64_t time_ns) {
  const size_t slot = slot_for(meter_device(row));
  const Layer layer = layer_of_row(row);
  Meter& meter = meters_[slot][layer];
  ++meter.births;
  ++meter.live_count;
  meter.live_bytes += row.size;
  meter.allocated_bytes += row.size;
  meter.high_bytes = std::max(meter.high_bytes, meter.live_bytes);
  if (meter.live_bytes > meter.peak_bytes) {
    meter.peak_bytes = meter.live_bytes;
    meter.peak_ns = time_ns;
  }
  for (const auto& span : open_) {
    SpanMeter& own = span->meters[slot][layer];
    own.touched = true;
    if (meter.live_bytes > own.peak_bytes) {
      own.peak_bytes = meter.live_bytes;
      own.peak_ns = time_ns;
    }
  }
}

namespace {

bool is_stream_ordered(uint8_t kind) { return kind == kAllocAsync || kind == kAllocPool || kind == kAllocGraph; }
bool shares_pages(const AllocationRow& row) {
  return row.size < kPageBytes && (row.kind == kAlloc || row.kind == kAllocPitch);
}

}  // namespace

void Ledger::add_to_footprint(const AllocationRow& row) {
  if (layer_of_row(row) != kDeviceLayer) return;
  Footprint& footprint = footprints_[row.device];
  if (is_stream_ordered(row.kind)) {
    footprint.ordered += row.size;
    ++footprint.ordered_births;
  } else {
    footprint.paged += shares_pages(row) ? pages_.take(row.device, row.address, row.size) : whole_pages(row.size);
  }
}

void Ledger::take_from_footprint(const AllocationRow& row) {
  if (layer_of_row(row) != kDeviceLayer) return;
  Footprint& footprint = footprints_[row.device];
  if (is_stream_ordered(row.kind)) {
    footprint.ordered -= row.size;
  } else {
    footprint.paged -= shares_pages(row) ? pages_.give_back(row.device, row.address, row.size) : whole_pages(row.size);
  }
}

Ledger::Extent Ledger::extent(uint8_t device) const {
  if (slots_[device] < 0) return {};
  const Meter& meter = meters_[static_cast<size_t>(slots_[device])][kDeviceLayer];
  return {meter.low_bytes, meter.high_bytes, meter.live_bytes};
}

void Ledger::restart_extents() {
  for (Meters& meters : meters_) {
    for (Meter& meter : meters) meter.low_bytes = meter.high_bytes = meter.live_bytes;
  }
}

void Ledger::death(Event& event) {
  event.handle = 0;
  if (event.kind == kAbsent) ++counters_[kAbsentCount];
  if (event.address == 0) {
    ++counters_[kNullFrees];
    return;
  }
  if (event.flags & kDeferredFree) {
    ++counters_[kDeferredFrees];
    return;
  }
  const uint32_t index = keys_[space_of(event.kind)].find(event.address);
  if (index == kNone32) {
    ++counters_[kUnknownFrees];
    return;
  }
  Entry& entry = entries_[index];
  event.device = entry.row.device;
  if (entry.row.references > 1 && event.kind != kAbsent) {
    --entry.row.references;
    if (entry.freeing > 0) --entry.freeing;
    return;
  }
  const uint64_t size = entry.row.size;
  end_or_orphan(index);
  if (!entries_[index].live) event.handle = size;
}

// A physical that is still mapped outlives its last reference.
void Ledger::end_or_orphan(uint32_t index) {
  Entry& entry = entries_[index];
  if (entry.row.mappings > 0) {
    drop_key(index);
    entry.row.references = 0;
    return;
  }
  end_entry(index);
}

void Ledger::drop_key(uint32_t index) {
  Entry& entry = entries_[index];
  if (entry.keyed) keys_[space_of(entry.row.kind)].erase(entry.row.address);
  entry.keyed = false;
}

void Ledger::end_entry(uint32_t index) {
  drop_key(index);
  Entry& entry = entries_[index];
  entry.live = false;
  Meter& meter = meter_of(entry.row);
  --meter.live_count;
  meter.live_bytes -= entry.row.size;
  meter.freed_bytes += entry.row.size;
  meter.low_bytes = std::min(meter.low_bytes, meter.live_bytes);
  take_from_footprint(entry.row);
  SiteRow& site = sites_[entry.site];
  ++site.freed_count;
  site.freed_bytes += entry.row.size;
  --live_count_;
  ++counters_[kDeaths];
  free_entries_.push_back(index);
}

// ---- virtual memory -------------------------------------------------------------------------------------------------

void Ledger::map(const Event& event) {
  const auto old = mappings_.find(event.address);
  if (old != mappings_.end()) drop_mapping(old);
  const uint32_t physical = keys_[kPhysicalSpace].find(event.handle);
  if (physical == kNone32) {
    ++counters_[kUnknownMaps];
  } else {
    ++entries_[physical].row.mappings;
  }
  mappings_[event.address] = Mapping{event.size, event.handle, physical};
}

uint64_t Ledger::drop_mapping(std::map<uint64_t, Mapping>::iterator mapping) {
  const uint32_t physical = mapping->second.entry;
  mappings_.erase(mapping);
  if (physical == kNone32) return 0;
  Entry& entry = entries_[physical];
  --entry.row.mappings;
  if (entry.row.mappings > 0 || entry.row.references > 0) return 0;
  const uint64_t size = entry.row.size;
  end_entry(physical);
  return size;
}

void Ledger::unmap(Event& event) {
  uint64_t ended = 0;
  auto mapping = mappings_.lower_bound(event.address);
  while (mapping != mappings_.end() && mapping->first - event.address < event.size) {
    const auto next = std::next(mapping);
    if (mapping->second.entry != kNone32) event.device = entries_[mapping->second.entry].row.device;
    ended += drop_mapping(mapping);
    mapping = next;
  }
  event.handle = ended;
}

void Ledger::retain(const Event& event) {
  const uint32_t known = keys_[kPhysicalSpace].find(event.address);
  if (known != kNone32) {
    ++entries_[known].row.references;
    return;
  }
  auto mapping = mappings_.upper_bound(event.handle);
  if (mapping == mappings_.begin()) {
    ++counters_[kUnknownMaps];
    return;
  }
  --mapping;
  const bool inside = event.handle - mapping->first < mapping->second.size;
  const uint32_t physical = mapping->second.entry;
  // The driver may name the same memory by a new handle once the old one was released; not before.
  if (!inside || physical == kNone32 || entries_[physical].keyed || event.address == 0) {
    ++counters_[kUnknownMaps];
    return;
  }
  Entry& entry = entries_[physical];
  entry.row.address = event.address;
  entry.row.references = 1;
  entry.keyed = true;
  keys_[kPhysicalSpace].insert(event.address, physical);
}

// ---- contexts and spans ---------------------------------------------------------------------------------------------

void Ledger::destroy_context(Event& event) {
  ++footprints_[event.device].contexts_ended;
  std::vector<uint32_t> doomed;
  for (uint32_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    if (!entry.live || entry.row.context != event.context) continue;
    if (space_of(entry.row.kind) == kPhysicalSpace) continue;
    if (entry.row.kind == kAllocAsync || entry.row.kind == kAllocPool) continue;
    doomed.push_back(i);
  }
  std::sort(doomed.begin(), doomed.end(),
            [this](uint32_t a, uint32_t b) { return entries_[a].row.serial < entries_[b].row.serial; });
  uint64_t device_bytes = 0;
  for (const uint32_t index : doomed) {
    if (layer_of_row(entries_[index].row) == kDeviceLayer) device_bytes += entries_[index].row.size;
    end_entry(index);
  }
  counters_[kContextDeaths] += doomed.size();
  event.size = device_bytes;
}

void Ledger::begin_span(const Event& event) {
  const uint32_t id = static_cast<uint32_t>(event.address);
  if (span_index_.find(id) != kNone32) return;
  span_index_.insert(id, static_cast<uint32_t>(spans_.size()));
  SpanRow row{};
  row.id = id;
  row.parent = static_cast<uint32_t>(event.handle);
  row.thread = event.thread;
  row.begin_ns = event.time_ns;
  spans_.push_back(row);
  if (open_.size() == kMaxOpenSpans) {
    ++counters_[kSpanOverflow];
    return;
  }
  if (spare_.empty()) spare_.push_back(std::make_unique<OpenSpan>());
  std::unique_ptr<OpenSpan> span = std::move(spare_.back());
  spare_.pop_back();
  span->id = id;
  span->begin_ns = event.time_ns;
  span->meters.resize(meters_.size());
  for (size_t slot = 0; slot < meters_.size(); ++slot) {
    for (size_t layer = 0; layer < kLayers; ++layer) {
      const uint64_t live = meters_[slot][layer].live_bytes;
      span->meters[slot][layer] = SpanMeter{live, live, event.time_ns, live != 0};
    }
  }
  open_.push_back(std::move(span));
}

void Ledger::end_span(const Event& event) {
  const uint32_t id = static_cast<uint32_t>(event.address);
  const uint32_t index = span_index_.find(id);
  if (index == kNone32 || spans_[index].end_ns != 0) return;
  spans_[index].end_ns = event.time_ns;
  for (auto span = open_.begin(); span != open_.end(); ++span) {
    if ((*span)->id != id) continue;
    span_meter_rows(**span, closed_meters_);
    spare_.push_back(std::move(*span));
    open_.erase(span);
    return;
  }
}

void Ledger::span_meter_rows(const OpenSpan& span, std::vector<SpanMeterRow>& rows) const {
  for (size_t slot = 0; slot < span.meters.size(); ++slot) {
    for (size_t layer = 0; layer < kLayers; ++layer) {
      const SpanMeter& meter = span.meters[slot][layer];
      if (!meter.touched) continue;
      SpanMeterRow row{};
      row.span = span.id;
      row.device = slot_devices_[slot];
      row.layer = static_cast<uint8_t>(layer);
      row.begin_bytes = meter.begin_bytes;
      row.end_bytes = meters_[slot][layer].live_bytes;
      row.peak_bytes = meter.peak_bytes;
      row.peak_ns = meter.peak_ns;
      rows.push_back(row);
    }
  }
}

// ---- frees under way on other threads -------------------------------------------------------------------------------

uint64_t Ledger::begin_free(Space space, uint64_t address) {
  const uint32_t index = keys_[space].find(address);
  if (index == kNone32) return kNoSerial;
  ++entries_[index].freeing;
  return entries_[index].row.serial;
}

void Ledger::cancel_free(Space space, uint64_t address, uint64_t serial) {
  const uint32_t index = keys_[space].find(address);
  if (index == kNone32 || entries_[index].row.serial != serial) return;
  if (entries_[index].freeing > 0) --entries_[index].freeing;
}

void Ledger::resolve_birth(Event& event) const {
  const uint32_t index = keys_[space_of(event.kind)].find(event.address);
  if (index != kNone32 && entries_[index].freeing > 0) event.flags |= kReused;
}

void Ledger::resolve_death(Event& event, uint64_t serial_at_begin) const {
  const uint32_t index = keys_[space_of(event.kind)].find(event.address);
  // What was seen at the begin may have ended at a reusing birth, and that birth have been freed again since.
  const uint64_t serial = index == kNone32 ? kNoSerial : entries_[index].row.serial;
  if (serial != serial_at_begin) event.flags |= kDeferredFree;
}

// ---- handing out ----------------------------------------------------------------------------------------------------

void Ledger::reserve(Tables& tables, bool allocations) const {
  const auto slack = [](size_t size) { return size + size / 8 + 64; };
  if (allocations) tables.allocations.reserve(slack(live_count_));
  tables.mappings.reserve(slack(mappings_.size()));
  tables.sites.reserve(slack(sites_.size()));
  tables.meters.reserve((meters_.size() + 4) * kLayers);
  tables.spans.reserve(slack(spans_.size()));
  tables.metered_spans.reserve(kMaxOpenSpans);
  tables.span_meters.reserve(slack(closed_meters_.size()) + open_.size() * (meters_.size() + 4) * kLayers);
}

void Ledger::copy(Tables& tables, bool allocations) const {
  for (const Entry& entry : entries_) {
    if (!allocations) break;
    if (entry.live) tables.allocations.push_back(entry.row);
  }
  for (const auto& [address, mapping] : mappings_) {
    const uint64_t serial = mapping.entry == kNone32 ? kNoSerial : entries_[mapping.entry].row.serial;
    tables.mappings.push_back(MappingRow{address, mapping.size, mapping.handle, serial});
  }
  tables.sites.assign(sites_.begin(), sites_.end());
  for (size_t slot = 0; slot < meters_.size(); ++slot) {
    for (size_t layer = 0; layer < kLayers; ++layer) {
      const Meter& meter = meters_[slot][layer];
      if (meter.births == 0) continue;
      tables.meters.push_back(MeterRow{slot_devices_[slot], static_cast<uint8_t>(layer), 0, 0, meter.live_count,
                                       meter.live_bytes, meter.peak_bytes, meter.peak_ns, meter.allocated_bytes,
                                       meter.freed_bytes});
    }
  }
  tables.spans.assign(spans_.begin(), spans_.end());
  tables.span_meters.assign(closed_meters_.begin(), closed_meters_.end());
  for (const auto& span : open_) {
    span_meter_rows(*span, tables.span_meters);
    tables.metered_spans.push_back(span->id);
  }
  std::memcpy(tables.counters, counters_, sizeof counters_);
  tables.next_serial = next_serial();
}

void Ledger::restore(const Tables& tables) {
  std::memcpy(counters_, tables.counters, sizeof counters_);
  base_serial_ = tables.next_serial - counters_[kEvents];
  for (const SiteRow& site : tables.sites) sites_[site_for(site)] = site;
  HashMap by_serial(tables.allocations.size() * 2);
  for (const AllocationRow& row : tables.allocations) {
    const uint32_t index = new_entry();
    Entry& entry = entries_[index];
    entry = Entry{};
    entry.row = row;
    entry.live = true;
    entry.keyed = row.references > 0;
    SiteRow key{};
    key.stack = row.stack;
    key.cell = row.cell;
    key.library = row.library;
    key.kind = row.kind;
    key.device = row.device;
    entry.site = site_for(key);
    if (entry.keyed) keys_[space_of(row.kind)].insert(row.address, index);
    by_serial.insert(row.serial, index);
    ++live_count_;
    add_to_footprint(row);
  }
  for (const MappingRow& row : tables.mappings) {
    mappings_[row.address] = Mapping{row.size, row.handle, by_serial.find(row.serial)};
  }
  for (const MeterRow& row : tables.meters) {
    if (row.layer >= kLayers) continue;
    meters_[slot_for(row.device)][row.layer] =
        Meter{row.live_count, row.live_bytes, row.peak_bytes, row.peak_ns, row.allocated_bytes, row.freed_bytes, 1,
              row.live_bytes, row.live_bytes};
  }
  for (const SpanRow& row : tables.spans) {
    span_index_.insert(row.id, static_cast<uint32_t>(spans_.size()));
    spans_.push_back(row);
    const bool metered =
        std::find(tables.metered_spans.begin(), tables.metered_spans.end(), row.id) != tables.metered_spans.end();
    if (metered && open_.size() < kMaxOpenSpans) {
      auto span = std::make_unique<OpenSpan>();
      span->id = row.id;
      span->begin_ns = row.begin_ns;
      span->meters.resize(meters_.size());
      for (SpanMeters& meters : span->meters) {
        for (SpanMeter& meter : meters) meter.peak_ns = row.begin_ns;
      }
      open_.push_back(std::move(span));
    }
  }
  for (const SpanMeterRow& row : tables.span_meters) {
    OpenSpan* open = nullptr;
    for (const auto& span : open_) {
      if (span->id == row.span) open = span.get();
    }
    if (open == nullptr) {
      closed_meters_.push_back(row);
    } else if (row.layer < kLayers) {
      const size_t slot = slot_for(row.device);
      open->meters[slot][row.layer] = SpanMeter{row.begin_bytes, row.peak_bytes, row.peak_ns, true};
    }
  }
}

}  // namespace gpumem

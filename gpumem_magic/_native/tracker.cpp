#include "tracker.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "fold.h"

namespace gpumem {
namespace {

constexpr uint32_t kTimedEvery = 64;

uint64_t now_ns() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1000000000ull + static_cast<uint64_t>(time.tv_nsec);
}

// Marks the thread as being in a callback: driver calls made from in there are not the user's.
class Inside {
 public:
  explicit Inside(ThreadState& thread) : thread_(thread) { thread_.inside = true; }
  ~Inside() { thread_.inside = false; }
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  ThreadState& thread_;
};

// In the per-thread-default-stream variants the null stream means the thread's own, which has a handle of its own.
bool uses_thread_default_stream(uint16_t function) {
  return function == 599 || function == 601 || function == 612 || function == 515;
}
constexpr uint64_t kThreadDefaultStream = 2;

}  // namespace

Tracker& Tracker::instance() {
  // Never destroyed: callbacks may come for as long as the process lives, also while it exits.
  static Tracker* tracker = [] {
    auto* made = new Tracker;
    pthread_atfork(before_fork, after_fork_parent, after_fork_child);
    return made;
  }();
  return *tracker;
}

// ---- subscribing ----------------------------------------------------------------------------------------------------

int Tracker::subscribe(const char* path, uint32_t groups) {
  if (subscriber_ == nullptr) {
    int result = driver_.load();
    if (result != 0) return result;
    const int status = driver_.init(0);
    if (status != 0) return kDriverFailed - status;
    result = cupti_.load(path);
    if (result != 0) return result;
    warm_up_unwinder();
    multiple_ = false;
    other_subscriber_[0] = '\0';
    result = kCuptiMultipleSubscribers;
    if (cupti_.subscribe_v2 != nullptr) {
      CuptiSubscriberParams params{};
      params.struct_size = sizeof params;
      params.name = "gpumem_magic";
      params.old_subscriber_name = other_subscriber_;
      params.old_subscriber_name_size = sizeof other_subscriber_;
      params.allow_multiple = 1;
      result = cupti_.subscribe_v2(&subscriber_, callback, this, &params);
      multiple_ = result == 0;
    }
    if (result != 0) result = cupti_.subscribe(&subscriber_, callback, this);
    if (result != 0) {
      subscriber_ = nullptr;
      return result;
    }
  }
  enable_callbacks(groups);
  return 0;
}

void Tracker::turn(bool on) {
  if (on && !on_.load()) {
    const std::lock_guard<std::mutex> lock(ledger_lock_);
    graphs_.forget_graphs();
  }
  on_.store(on, std::memory_order_release);
}

void Tracker::enable_callbacks(uint32_t groups) {
  const DriverCalls calls = all_driver_calls();
  for (const DriverCall* call = calls.begin; call != calls.end; ++call) {
    if (call->role == Role::kHeartbeat) continue;
    const uint32_t wanted = (groups >> static_cast<int>(call->group)) & 1;
    // An id that this CUPTI does not have yet is refused; the driver does not have the call then either.
    cupti_.enable_callback(wanted, subscriber_, kDomainDriver, call->id);
  }
  for (const uint32_t id : {kContextCreated, kContextDestroyStarting, kModuleLoaded, kModuleUnloadStarting}) {
    cupti_.enable_callback(1, subscriber_, kDomainResource, id);
  }
}

int Tracker::unsubscribe() {
  turn(false);
  if (subscriber_ == nullptr) return 0;
  const int result = cupti_.unsubscribe(subscriber_);
  subscriber_ = nullptr;
  return result;
}

bool Tracker::heartbeat() {
  if (subscriber_ == nullptr) return false;
  heard_ = false;
  int version = 0;
  cupti_.enable_callback(1, subscriber_, kDomainDriver, kDriverGetVersionId);
  driver_.driver_get_version(&version);
  cupti_.enable_callback(0, subscriber_, kDomainDriver, kDriverGetVersionId);
  return heard_;
}

// ---- the callback ---------------------------------------------------------------------------------------------------

void Tracker::callback(void* user, int domain, uint32_t id, const void* data) {
  ThreadState* thread = thread_state();
  if (thread == nullptr || thread->inside) return;
  auto& self = *static_cast<Tracker*>(user);
  const bool heartbeat = domain == kDomainDriver && id == kDriverGetVersionId;
  if (!self.on_.load(std::memory_order_acquire) && !heartbeat) return;
  const Inside inside(*thread);
  if (domain == kDomainDriver) {
    self.on_driver_call(*thread, id, *static_cast<const CuptiCallbackData*>(data));
  } else if (domain == kDomainResource) {
    self.on_resource(*thread, id, *static_cast<const CuptiResourceData*>(data));
  }
}

void Tracker::on_driver_call(ThreadState& thread, uint32_t id, const CuptiCallbackData& data) {
  const DriverCall* call = find_driver_call(id);
  if (call == nullptr) return;
  if (call->role == Role::kHeartbeat) {
    heard_ = true;
    return;
  }
  if (data.site == kSiteEnter) {
    on_enter(thread, *call, data);
    return;
  }
  if (++thread.tick % kTimedEvery != 0) {
    on_exit(thread, *call, data);
    return;
  }
  const uint64_t begin = now_ns();
  on_exit(thread, *call, data);
  sampled_ns_.fetch_add(now_ns() - begin, std::memory_order_relaxed);
  sampled_.fetch_add(1, std::memory_order_relaxed);
  callbacks_.fetch_add(kTimedEvery, std::memory_order_relaxed);
}

void Tracker::on_enter(ThreadState& thread, const DriverCall& call, const CuptiCallbackData& data) {
  if (call.role == Role::kWait) {
    thread.wait_begin_ns = now_ns();
  } else if (call.role == Role::kFree) {
    // Announce the free: another thread may be given the address before this call returns to us.
    DecodedCall decoded;
    call.decode(data.params, false, decoded);
    const std::lock_guard<std::mutex> lock(ledger_lock_);
    thread.free_correlation = data.correlation_id;
    thread.free_serial = ledger_->begin_free(space_of(call.kind), decoded.event.address);
  }
}

void Tracker::on_exit(ThreadState& thread, const DriverCall& call, const CuptiCallbackData& data) {
  DecodedCall decoded;
  Event& event = decoded.event;
  event.kind = call.kind;
  event.function = call.id;
  event.device = kNoDevice;
  const int status = data.return_value != nullptr ? *static_cast<const int*>(data.return_value) : 0;
  event.status = static_cast<uint16_t>(status);
  const bool succeeded = status == 0;
  call.decode(data.params, succeeded, decoded);
  if (decoded.stream == 0 && uses_thread_default_stream(call.id)) decoded.stream = kThreadDefaultStream;

  switch (call.role) {
    case Role::kRecord:
    case Role::kFree:
      break;
    case Role::kWait:
      event.size = now_ns() - thread.wait_begin_ns;
      break;
    case Role::kLearnPool: {
      const std::lock_guard<std::mutex> lock(tables_);
      if (succeeded && event.address != 0) pools_[event.address] = event.device;
      return;
    }
    case Role::kCaptureBegin:
      if (succeeded) captures_.fetch_add(1);
      return;
    case Role::kCaptureEnd:
      // A capture that failed has ended too; counting one too many would only cost a question per call.
      if (captures_.load() > 0 && (succeeded || status == 901 || status == 904)) captures_.fetch_sub(1);
      return;
    default:
      if (succeeded) locate(thread, data, decoded);
      if (succeeded) on_graph_call(thread, call, decoded);
      return;
  }

  if (succeeded && decoded.stream_ordered && captures_.load(std::memory_order_relaxed) > 0) divert_captured(decoded);
  if (decoded.size_unknown && succeeded) {
    uint64_t base = 0;
    size_t size = 0;
    if (driver_.get_address_range(&base, &size, event.address) == 0) event.size = size;
  }
  locate(thread, data, decoded);
  attribute(thread, event, call.id);
  if (call.role == Role::kFree) {
    record_death(thread, event, data.correlation_id);
  } else {
    record(event);
  }
}

bool Tracker::divert_captured(DecodedCall& decoded) {
  if (driver_.stream_get_capture_info == nullptr) return false;
  constexpr int kActive = 1;
  int status = 0;
  uint64_t id = 0;
  void* graph = nullptr;
  const int result = driver_.stream_get_capture_info(reinterpret_cast<CuStream>(decoded.stream), &status, &id, &graph,
                                                     nullptr, nullptr);
  if (result != 0 || status != kActive) return false;
  Event& event = decoded.event;
  if (event.kind == kFreeAsync) {
    event.kind = kGraphNodeFree;
  } else if (event.kind == kAllocAsync || event.kind == kAllocPool) {
    event.kind = kGraphNodeAlloc;
  } else {
    return false;
  }
  event.handle = reinterpret_cast<uint64_t>(graph);
  return true;
}

void Tracker::locate(ThreadState& thread, const CuptiCallbackData& data, DecodedCall& decoded) {
  Event& event = decoded.event;
  event.context = data.context != nullptr ? data.context_id : 0;
  if (decoded.stream_ordered) event.stream = stream_id(thread, decoded.stream);
  if (event.kind == kPoolCreate && event.status == 0) {
    const std::lock_guard<std::mutex> lock(tables_);
    pools_[event.address] = event.device;
  }
  if (decoded.names_device) return;
  const Layer layer = layer_of(event.kind, 0);
  if (layer == kHostLayer) return;
  const uint8_t device = device_of(thread, data.context, event.context);
  event.device = event.kind == kAllocPool ? pool_device(event.handle, device) : device;
  if (event.kind == kAllocPool && event.device == kNoDevice && device != kNoDevice) event.flags |= kHostLocation;
}

void Tracker::attribute(ThreadState& thread, Event& event, uint32_t function) {
  event.thread = thread.thread;
  if (thread.has_span) {
    event.cell = thread.span;
    if (thread.inherited) event.flags |= kBackground;
  } else {
    event.cell = foreground_span_.load(std::memory_order_relaxed);
    if (event.cell != 0) event.flags |= kBackground;
  }
  if (use_stacks_.load(std::memory_order_relaxed)) event.stack = capture_stack(thread);
  event.library = thread.callers.find(function, libraries_);
}

void Tracker::append_locked(Event& event) {
  event.time_ns = now_ns();  // under the lock, so that time never runs backwards in the journal
  ledger_->apply(event);
  note_level(*ledger_, series_, event);
  if (journal_ != nullptr) journal_->append(event);
}

void Tracker::record(Event& event) {
  const std::lock_guard<std::mutex> lock(ledger_lock_);
  if (is_birth(event.kind) && event.status == 0) ledger_->resolve_birth(event);
  append_locked(event);
  if (event.kind == kGraphNodeAlloc && event.status == 0) graphs_.add(event);
}

void Tracker::record_death(ThreadState& thread, Event& event, uint32_t correlation_id) {
  const std::lock_guard<std::mutex> lock(ledger_lock_);
  if (thread.free_correlation == correlation_id) {
    if (event.status == 0 && is_death(event.kind)) {
      ledger_->resolve_death(event, thread.free_serial);
    } else {
      ledger_->cancel_free(space_of(event.kind), event.address, thread.free_serial);
    }
    thread.free_correlation = 0;
  }
  append_locked(event);
  if (event.kind == kGraphNodeFree && event.status == 0) graphs_.add(event);
}

// ---- graphs, contexts, modules --------------------------------------------------------------------------------------

void Tracker::on_graph_call(ThreadState& thread, const DriverCall& call, DecodedCall& decoded) {
  Event& event = decoded.event;
  if (call.role == Role::kGraphAddNode && event.kind == kNone) return;
  if (call.role == Role::kGraphAddNode || call.role == Role::kGraphLaunch) attribute(thread, event, call.id);
  const std::lock_guard<std::mutex> lock(ledger_lock_);
  switch (call.role) {
    case Role::kGraphAddNode:
      append_locked(event);
      graphs_.add(event);
      break;
    case Role::kGraphInstantiate:
      graphs_.instantiate(event.address, event.handle);
      break;
    case Role::kGraphClone:
      graphs_.clone(event.address, event.handle);
      break;
    case Role::kGraphDestroy:
      graphs_.destroy(event.address);
      break;
    case Role::kExecDestroy:
      graphs_.destroy_executable(event.address);
      break;
    case Role::kGraphLaunch:
      append_locked(event);
      launch_graph(event);
      break;
    default:
      break;
  }
}

void Tracker::launch_graph(const Event& launch) {
  for (Event& event : graphs_.launch(launch.address)) {
    // The stack is the node's: where the memory was asked for, not where it was set off.
    event.cell = launch.cell;
    event.flags |= launch.flags;
    event.thread = launch.thread;
    event.stream = launch.stream;
    if (is_birth(event.kind)) ledger_->resolve_birth(event);
    append_locked(event);
  }
}

void Tracker::on_resource(ThreadState& thread, uint32_t id, const CuptiResourceData& data) {
  Event event{};
  event.device = kNoDevice;
  uint32_t context_id = 0;
  if (data.context != nullptr && cupti_.get_context_id(data.context, &context_id) == 0) event.context = context_id;
  event.device = device_of(thread, data.context, event.context);
  if (id == kContextCreated) {
    event.kind = kContextCreate;
  } else if (id == kContextDestroyStarting) {
    if (event.context == 0) return;  // nobody knows which: it must not end what has no context
    event.kind = kContextDestroy;
  } else if (id == kModuleLoaded || id == kModuleUnloadStarting) {
    const auto* module = static_cast<const CuptiModuleData*>(data.descriptor);
    event.kind = id == kModuleLoaded ? kModuleLoad : kModuleUnload;
    if (module != nullptr) {
      event.address = module->module_id;
      event.size = module->cubin_bytes;
    }
  } else {
    return;
  }
  attribute(thread, event, 0);
  record(event);
  if (event.kind == kContextDestroy) {
    const std::lock_guard<std::mutex> lock(tables_);
    contexts_.erase(event.context);
  }
}

// ---- looking things up ----------------------------------------------------------------------------------------------

uint8_t Tracker::device_of(ThreadState& thread, CuContext context, uint32_t context_id) {
  if (context == nullptr) return kNoDevice;
  if (thread.context_id == context_id && context_id != 0) return thread.device;
  uint8_t device = kNoDevice;
  {
    const std::lock_guard<std::mutex> lock(tables_);
    const auto known = contexts_.find(context_id);
    if (known != contexts_.end()) device = known->second.device;
  }
  if (device == kNoDevice) {
    uint32_t number = 0;
    int current = 0;
    if (cupti_.get_device_id(context, &number) == 0) {
      device = static_cast<uint8_t>(number);
    } else if (driver_.context_get_device(&current) == 0) {
      device = static_cast<uint8_t>(current);
    }
    const std::lock_guard<std::mutex> lock(tables_);
    contexts_[context_id] = Context{context, device};
    const uint32_t ids[] = {context_id, device};
    const auto handle = reinterpret_cast<uint64_t>(context);
    std::string record(reinterpret_cast<const char*>(ids), sizeof ids);
    record.append(reinterpret_cast<const char*>(&handle), sizeof handle);
    log_.append(kContextRecord, record);
  }
  thread.context_id = context_id;
  thread.device = device;
  return device;
}

uint32_t Tracker::stream_id(ThreadState& thread, uint64_t handle) {
  if (handle == 0) return 0;
  if (thread.stream_handle == handle) return thread.stream;
  const std::lock_guard<std::mutex> lock(tables_);
  uint32_t id = streams_.find(handle);
  if (id == HashMap::kAbsentValue) {
    id = ++stream_count_;
    streams_.insert(handle, id);
    const uint32_t ids[] = {id, 0};
    std::string record(reinterpret_cast<const char*>(ids), sizeof ids);
    record.append(reinterpret_cast<const char*>(&handle), sizeof handle);
    log_.append(kStreamRecord, record);
  }
  thread.stream_handle = handle;
  thread.stream = id;
  return id;
}

uint8_t Tracker::pool_device(uint64_t pool, uint8_t fallback) {
  const std::lock_guard<std::mutex> lock(tables_);
  const auto known = pools_.find(pool);
  return known != pools_.end() ? known->second : fallback;
}

// ---- stacks ---------------------------------------------------------------------------------------------------------

uint32_t Tracker::capture_stack(ThreadState& thread) {
  const int limit = std::min(depth_.load(std::memory_order_relaxed), ThreadState::kMaxDepth);
  const int count = walk_frames(thread.fresh, limit);
  if (count == 0) return 0;
  // After the walk: a code object whose address was reused died before the frame that runs the new one began.
  const uint64_t epoch = code_epoch_.load(std::memory_order_acquire);
  int kept = 0;
  if (thread.epoch == epoch) {
    const int common = std::min(count, thread.depth);
    while (kept < common && thread.fresh[count - 1 - kept] == thread.frames[kept]) ++kept;
  }
  if (kept < count) {
    intern_from(thread, count, kept);
    thread.epoch = epoch;
  }
  thread.depth = count;
  return thread.nodes[count - 1];
}

// Interns fresh frames beyond the `kept` outermost ones. thread.frames is outermost first.
uint32_t Tracker::intern_from(ThreadState& thread, int count, int kept) {
  std::unique_lock<std::mutex> lock(tables_);
  uint32_t parent = kept > 0 ? thread.nodes[kept - 1] : 0;
  for (int i = kept; i < count; ++i) {
    const RawFrame& frame = thread.fresh[count - 1 - i];
    uint32_t code = stacks_.find_code(frame.code);
    if (code == 0) {
      lock.unlock();
      CodeFacts facts;
      read_code(frame.code, facts);
      lock.lock();
      code = stacks_.add_code(frame.code, facts.first_line, facts.filename, facts.function, facts.line_table);
    }
    parent = stacks_.node(parent, code, frame.lasti);
    thread.frames[i] = frame;
    thread.nodes[i] = parent;
  }
  return parent;
}

uint32_t Tracker::current_stack() {
  ThreadState* thread = thread_state();
  return thread == nullptr ? 0 : capture_stack(*thread);
}

void Tracker::code_destroyed(const void* code) {
  const std::lock_guard<std::mutex> lock(tables_);
  if (stacks_.forget_code(code)) code_epoch_.fetch_add(1, std::memory_order_release);
}

void Tracker::forget_code() {
  const std::lock_guard<std::mutex> lock(tables_);
  stacks_.forget_all_code();
  code_epoch_.fetch_add(1, std::memory_order_release);
}

// ---- spans, marks, notes --------------------------------------------------------------------------------------------

uint32_t Tracker::begin_span(uint32_t parent, const std::string& payload, bool foreground) {
  const uint32_t id = next_span_.fetch_add(1);
  describe_span(id, payload);
  Event event{};
  event.kind = kSpanBegin;
  event.address = id;
  event.handle = parent;
  event.cell = id;
  event.device = kNoDevice;
  ThreadState* thread = thread_state();
  if (thread != nullptr) {
    event.thread = thread->thread;
    thread->span = id;
    thread->has_span = true;
    thread->inherited = false;
  }
  record(event);
  if (foreground) foreground_span_.store(id);
  return id;
}

void Tracker::end_span(uint32_t id, uint32_t parent, const std::string& payload, bool foreground) {
  if (foreground) foreground_span_.store(parent);
  Event event{};
  event.kind = kSpanEnd;
  event.address = id;
  event.cell = id;
  event.device = kNoDevice;
  ThreadState* thread = thread_state();
  if (thread != nullptr) {
    event.thread = thread->thread;
    thread->span = parent;
  }
  record(event);
  describe_span(id, payload);
}

void Tracker::describe_span(uint32_t id, const std::string& payload) {
  std::string record(reinterpret_cast<const char*>(&id), sizeof id);
  record += payload;
  const std::lock_guard<std::mutex> lock(tables_);
  log_.append(kSpanRecord, record);
}

void Tracker::adopt_span(uint32_t id) {
  ThreadState* thread = thread_state();
  if (thread == nullptr) return;
  thread->span = id;
  thread->has_span = true;
  thread->inherited = true;
}

uint32_t Tracker::current_span() {
  const ThreadState* thread = thread_state();
  return thread != nullptr && thread->has_span ? thread->span : instance().foreground_span_.load();
}

void Tracker::note(const std::string& payload) {
  const uint64_t time = now_ns();
  std::string record(reinterpret_cast<const char*>(&time), sizeof time);
  record += payload;
  const std::lock_guard<std::mutex> lock(tables_);
  log_.append(kNoteRecord, record);
}

void Tracker::mark(uint8_t kind) {
  Event event{};
  event.kind = kind;
  event.device = kNoDevice;
  const ThreadState* thread = thread_state();
  if (thread != nullptr) event.thread = thread->thread;
  record(event);
}

// ---- recordings -----------------------------------------------------------------------------------------------------

void Tracker::begin_recording(const std::string& directory, uint64_t budget_bytes) {
  auto ledger = std::make_unique<Ledger>();
  auto journal = std::make_unique<Journal>(directory, budget_bytes);
  {
    const std::lock_guard<std::mutex> lock(ledger_lock_);
    ledger_.swap(ledger);
    journal_.swap(journal);
    series_ = Series();
  }
  const std::lock_guard<std::mutex> lock(tables_);
  log_.open(directory);
}

void Tracker::end_recording() {
  std::unique_ptr<Journal> journal;
  {
    const std::lock_guard<std::mutex> lock(ledger_lock_);
    journal_.swap(journal);
  }
  journal.reset();  // outside the lock: it joins the keeper
  const std::lock_guard<std::mutex> lock(tables_);
  log_.close();
}

void Tracker::copy(Copy& copy, bool allocations) {
  {
    const std::lock_guard<std::mutex> lock(ledger_lock_);
    ledger_->reserve(copy.tables, allocations);
  }
  const std::lock_guard<std::mutex> lock(ledger_lock_);
  ledger_->copy(copy.tables, allocations);
  copy.series = series_.rows();
  copy.time_ns = now_ns();
}

uint64_t Tracker::tracked(std::vector<Tracked>& levels, bool restart) {
  const std::lock_guard<std::mutex> lock(ledger_lock_);
  const bool on = on_.load(std::memory_order_relaxed);
  for (Tracked& level : levels) {
    const Ledger::Extent extent = ledger_->extent(level.device);
    level.low = on ? static_cast<int64_t>(extent.low) : -1;
    level.high = on ? static_cast<int64_t>(extent.high) : -1;
    level.now = on ? static_cast<int64_t>(extent.now) : -1;
    level.footprint = ledger_->footprint(level.device);
    level.births_and_deaths = ledger_->births_and_deaths();
  }
  if (restart) ledger_->restart_extents();
  return now_ns();
}

uint64_t Tracker::events() {
  const std::lock_guard<std::mutex> lock(ledger_lock_);
  return ledger_->next_serial();
}

std::string Tracker::read_records(uint64_t from) {
  const std::lock_guard<std::mutex> lock(tables_);
  return log_.read(from);
}

std::vector<SegmentInfo> Tracker::segments() {
  const std::lock_guard<std::mutex> lock(ledger_lock_);
  return journal_ != nullptr ? journal_->segments() : std::vector<SegmentInfo>{};
}

Health Tracker::health() {
  Health health{};
  health.callbacks = callbacks_;
  health.sampled = sampled_;
  health.sampled_ns = sampled_ns_;
  health.subscribed = subscriber_ != nullptr;
  health.on = on_;
  health.multiple = multiple_;
  {
    const std::lock_guard<std::mutex> lock(tables_);
    health.stacks = stacks_.node_count();
    health.codes = stacks_.code_count();
    health.record_bytes = log_.size();
    health.record_error = log_.error();
  }
  const std::lock_guard<std::mutex> lock(ledger_lock_);
  health.events = ledger_->next_serial();
  if (journal_ != nullptr) {
    health.journal_error = journal_->error();
    health.lost_events = journal_->lost();
  }
  return health;
}

// ---- after a gap ----------------------------------------------------------------------------------------------------

bool Tracker::is_known_to_driver(const AllocationRow& row, CuContext context) const {
  if (row.kind == kAllocHost || row.kind == kRegisterHost) {
    unsigned flags = 0;
    return driver_.host_get_flags(&flags, reinterpret_cast<void*>(row.address)) == 0;
  }
  if (context == nullptr || driver_.context_push(context) != 0) return false;
  uint64_t base = 0;
  size_t size = 0;
  const int status = driver_.get_address_range(&base, &size, row.address);
  CuContext popped = nullptr;
  driver_.context_pop(&popped);
  return status == 0 && base == row.address && size >= row.size;
}

uint64_t Tracker::reconcile() {
  ThreadState* thread = thread_state();
  if (thread == nullptr || driver_.get_address_range == nullptr) return 0;
  Copy now;
  copy(now);
  std::unordered_map<uint32_t, CuContext> contexts;
  {
    const std::lock_guard<std::mutex> lock(tables_);
    for (const auto& [id, context] : contexts_) contexts[id] = context.handle;
  }
  uint64_t ended = 0;
  for (const AllocationRow& row : now.tables.allocations) {
    if (space_of(row.kind) != kAddressSpace) continue;  // the driver answers for addresses, not for handles
    const auto context = contexts.find(row.context);
    if (is_known_to_driver(row, context != contexts.end() ? context->second : nullptr)) continue;
    Event event{};
    event.kind = kAbsent;
    event.address = row.address;
    event.context = row.context;
    event.device = kNoDevice;
    event.thread = thread->thread;
    const std::lock_guard<std::mutex> lock(ledger_lock_);
    ledger_->resolve_death(event, row.serial);  // it may have died, and the address been reused, meanwhile
    if (event.flags & kDeferredFree) continue;
    append_locked(event);
    ++ended;
  }
  return ended;
}

// ---- fork -----------------------------------------------------------------------------------------------------------

void Tracker::before_fork() {
  instance().tables_.lock();
  instance().ledger_lock_.lock();
}

void Tracker::after_fork_parent() {
  instance().ledger_lock_.unlock();
  instance().tables_.unlock();
}

void Tracker::after_fork_child() {
  Tracker& self = instance();
  self.on_ = false;
  // The keeper thread does not exist here and its mutex may be held for ever: leave the journal to the parent.
  if (self.journal_ != nullptr) self.journal_.release()->abandon();
  self.log_.abandon();
  self.foreground_span_ = 0;
  ThreadState* thread = thread_state();
  if (thread != nullptr) {
    thread->thread = static_cast<uint32_t>(getpid());  // the only thread of a forked child is its first
    thread->has_span = false;
    thread->span = 0;
  }
  self.ledger_lock_.unlock();
  self.tables_.unlock();
}

}  // namespace gpumem

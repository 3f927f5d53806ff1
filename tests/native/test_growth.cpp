// What a process holds beside its allocations, by its cause, when measurements and callbacks come in any order.
#include "check.h"
#include "growth.h"

namespace {

using namespace gpumem;

constexpr uint64_t kTenth = 100000000;
constexpr int64_t kMiB = 1 << 20;

// A process that is measured every tenth of a second.
class Process {
 public:
  Process& context() { return footprint_.contexts++, *this; }
  Process& context_ends() { return footprint_.contexts_ended++, *this; }
  Process& module() { return footprint_.modules++, *this; }
  Process& measured(int64_t mib) {
    growth_.see(time_ += kTenth, mib * kMiB, footprint_);
    return *this;
  }
  Process& passes(int tenths) {
    time_ += tenths * kTenth;
    return *this;
  }
  int64_t contexts() const { return growth_.context_bytes() / kMiB; }
  int64_t code() const { return growth_.code_bytes() / kMiB; }

 private:
  Growth growth_;
  Ledger::Footprint footprint_{};
  uint64_t time_ = 1000 * kTenth;
};

void nothing_is_known_before_the_first_measurement() {
  const Growth growth;
  CHECK_EQ(growth.context_bytes(), -1);
  CHECK_EQ(growth.code_bytes(), -1);
}

void what_was_there_counts_as_context() {
  Process process;
  process.measured(545).measured(545);
  CHECK_EQ(process.contexts(), 545);
  CHECK_EQ(process.code(), 0);
}

void a_context_and_then_kernels() {
  Process process;
  process.measured(0).context().measured(400).measured(530).module().measured(622).passes(20).measured(622);
  CHECK_EQ(process.contexts(), 530);
  CHECK_EQ(process.code(), 92);
}

void growth_that_is_seen_before_its_cause() {
  Process process;
  process.measured(0).measured(530).context().measured(530).passes(20).measured(530);
  CHECK_EQ(process.contexts(), 530);
  process.measured(600).module().measured(600);
  CHECK_EQ(process.code(), 70);
}

void growth_without_a_cause_is_nobodys() {
  Process process;
  process.context().measured(530).passes(20).measured(600).passes(20).module().measured(600);
  CHECK_EQ(process.contexts(), 530);
  CHECK_EQ(process.code(), 0);
  process.measured(640);
  CHECK_EQ(process.code(), 40);
}

void what_shrinks_takes_the_unexplained_first() {
  Process process;
  process.context().measured(500).module().measured(600).passes(20).measured(700).measured(650);
  CHECK_EQ(process.contexts() + process.code(), 600);
  process.measured(580);
  CHECK_EQ(process.contexts(), 500);
  CHECK_EQ(process.code(), 80);
  process.measured(-5);
  CHECK_EQ(process.contexts() + process.code(), 0);
}

void a_context_that_ends_takes_its_own() {
  Process process;
  process.context().measured(530).module().measured(600).passes(20).context().measured(1130);
  CHECK_EQ(process.contexts(), 1060);
  process.passes(20).context_ends().measured(600);
  CHECK_EQ(process.contexts(), 530);
  CHECK_EQ(process.code(), 70);
}

}  // namespace

int main() {
  RUN(nothing_is_known_before_the_first_measurement);
  RUN(what_was_there_counts_as_context);
  RUN(a_context_and_then_kernels);
  RUN(growth_that_is_seen_before_its_cause);
  RUN(growth_without_a_cause_is_nobodys);
  RUN(what_shrinks_takes_the_unexplained_first);
  RUN(a_context_that_ends_takes_its_own);
}

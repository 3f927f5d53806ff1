// HashMap against std::unordered_map, with keys that want the same place.
#include <unordered_map>

#include "check.h"
#include "hash_map.h"

namespace {

using gpumem::HashMap;

// Keys whose home is near the end of a table of 64 places, so that probing wraps around, and the extreme keys.
std::vector<uint64_t> colliding_keys() {
  std::vector<uint64_t> keys = {0, UINT64_MAX, 1};
  for (uint64_t key = 2; keys.size() < 40; ++key) {
    if ((((key * 0x9E3779B97F4A7C15ull) >> 24) & 63) >= 60) keys.push_back(key);
  }
  return keys;
}

void against_standard_map(const std::vector<uint64_t>& keys, uint64_t seed, int steps) {
  test::Random random(seed);
  HashMap map;
  std::unordered_map<uint64_t, uint32_t> model;
  for (int step = 0; step < steps; ++step) {
    const uint64_t key = keys[test::below(random, keys.size())];
    if (test::one_in(random, 2)) {
      const auto value = static_cast<uint32_t>(test::below(random, UINT32_MAX));
      map.insert(key, value);
      model[key] = value;
    } else {
      CHECK_EQ(map.erase(key), model.erase(key) == 1);
    }
    CHECK_EQ(map.size(), model.size());
    const uint64_t probe = keys[test::below(random, keys.size())];
    const auto known = model.find(probe);
    CHECK_EQ(map.find(probe), known == model.end() ? HashMap::kAbsentValue : known->second);
  }
  for (const uint64_t key : keys) {
    const auto known = model.find(key);
    CHECK_EQ(map.find(key), known == model.end() ? HashMap::kAbsentValue : known->second);
  }
}

void colliding_keys_come_and_go() {
  for (uint64_t seed = 0; seed < 20; ++seed) against_standard_map(colliding_keys(), seed, 20000);
}

void pointers_come_and_go() {
  std::vector<uint64_t> keys;
  for (uint64_t i = 0; i < 5000; ++i) keys.push_back(0x7f0000000000 + i * (2 << 20));
  against_standard_map(keys, 7, 400000);
}

void a_million_births_and_deaths_leave_no_tombstones() {
  // A table that kept tombstones would fill up and never end a failing look-up: the time limit would strike.
  HashMap map(16);
  for (uint64_t i = 0; i < 1000000; ++i) {
    map.insert(i, static_cast<uint32_t>(i & 0xffff));
    if (i >= 5) CHECK(map.erase(i - 5));
    CHECK_EQ(map.find(~i), HashMap::kAbsentValue);
  }
  CHECK_EQ(map.size(), 5u);
}

void clear_forgets_everything() {
  HashMap map;
  for (uint64_t i = 0; i < 1000; ++i) map.insert(i, 1);
  map.clear();
  CHECK_EQ(map.size(), 0u);
  for (uint64_t i = 0; i < 1000; ++i) CHECK_EQ(map.find(i), HashMap::kAbsentValue);
  map.insert(3, 4);
  CHECK_EQ(map.find(3), 4u);
}

}  // namespace

int main() {
  test::limit_time(120);
  RUN(colliding_keys_come_and_go);
  RUN(pointers_come_and_go);
  RUN(a_million_births_and_deaths_leave_no_tombstones);
  RUN(clear_forgets_everything);
}

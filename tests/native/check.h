// What the native tests share: checks that stop the program, a repeatable random source, a directory that goes away.
#pragma once

#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#if defined(__SANITIZE_THREAD__)
#define GPUMEM_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define GPUMEM_THREAD_SANITIZER 1
#endif
#if __has_feature(address_sanitizer)
#define GPUMEM_ADDRESS_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define GPUMEM_ADDRESS_SANITIZER 1
#endif

namespace test {

// Under ThreadSanitizer all is slow, and a child of a process with threads cannot start threads.
#ifdef GPUMEM_THREAD_SANITIZER
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif
#ifdef GPUMEM_ADDRESS_SANITIZER
constexpr bool kAddressSanitizer = true;
#else
constexpr bool kAddressSanitizer = false;
#endif

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
  std::fflush(nullptr);
  std::_Exit(1);
}

template <class A, class B>
void check_equal(const A& a, const B& b, const char* text, const char* file, int line) {
  if (a == b) return;
  std::ostringstream what;
  what << text << ": " << +a << " is not " << +b;
  fail(file, line, what.str());
}

#define CHECK(condition)                                          \
  do {                                                            \
    if (!(condition)) test::fail(__FILE__, __LINE__, #condition); \
  } while (false)
#define CHECK_EQ(a, b) test::check_equal((a), (b), #a, __FILE__, __LINE__)

using Random = std::mt19937_64;

inline uint64_t below(Random& random, uint64_t limit) { return random() % limit; }
inline bool one_in(Random& random, uint64_t n) { return random() % n == 0; }

inline std::vector<std::string> segment_files(const std::string& directory, const std::string& prefix) {
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(prefix, 0) == 0 && entry.path().extension() == ".bin") found.push_back(entry.path().string());
  }
  std::sort(found.begin(), found.end());
  return found;
}

// A directory of this test's own under TMPDIR, removed with everything in it.
class Directory {
 public:
  Directory() {
    const char* base = std::getenv("TMPDIR");
    path_ = std::string(base != nullptr ? base : "/tmp") + "/gpumem-test-XXXXXX";
    CHECK(mkdtemp(path_.data()) != nullptr);
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  // Files named `prefix`*.bin, in order of their names.
  std::vector<std::string> files(const std::string& prefix) const { return segment_files(path_, prefix); }

 private:
  std::string path_;
};

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  CHECK(file.good());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline void write_file(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  CHECK(file.good());
}

// Runs `body` in a child process; returns what waitpid() says.
inline int in_child(const std::function<void()>& body) {
  std::fflush(nullptr);
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    body();
    std::fflush(nullptr);
    std::_Exit(0);
  }
  int status = 0;
  CHECK_EQ(waitpid(child, &status, 0), child);
  return status;
}

// A hang is a failure: the program ends itself with SIGALRM after this long.
inline void limit_time(unsigned seconds) { alarm(seconds); }

inline void run(const char* name, void (*function)()) {
  std::printf("  %s\n", name);
  std::fflush(stdout);
  const auto begin = std::chrono::steady_clock::now();
  function();
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
  if (taken.count() > 1) std::printf("    %.1f s\n", taken.count());
}
#define RUN(function) test::run(#function, function)

}  // namespace test

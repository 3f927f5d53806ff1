#include "segment.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "crc32.h"
#include "signals.h"

namespace gpumem {
namespace {

constexpr size_t kCrcCovers = 60;
// A file has its name once its header is complete, so that no reader and no death of ours leaves half a header.
constexpr char kUnpublished[] = ".new";

int open_backing(const std::string& path) {
  if (path.empty()) return memfd_create("gpumem-segment", MFD_CLOEXEC);
  return open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
}

}  // namespace

Segment* Segment::create(const std::string& path, const char* magic, uint32_t record_size, uint32_t number,
                         uint64_t bytes, int& error) {
  std::unique_ptr<Segment> segment(new Segment);
  segment->bytes_ = bytes;
  if (!path.empty()) segment->path_ = path + kUnpublished;
  segment->fd_ = open_backing(segment->path_);
  if (segment->fd_ < 0) {
    error = errno;
    return nullptr;
  }
  const uint64_t size = bytes + kHeaderSize;
  {
    // Without reserved blocks a full disk would kill the process with SIGBUS at some later store. A signal would
    // interrupt the reservation, which would then look like a disk that takes no more.
    const SignalsHeld held;
    error = posix_fallocate(segment->fd_, 0, static_cast<off_t>(size));
  }
  if (error != 0) {
    if (!path.empty()) unlink(segment->path_.c_str());
    return nullptr;
  }
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, segment->fd_, 0);
  if (base == MAP_FAILED) {
    error = errno;
    if (!path.empty()) unlink(segment->path_.c_str());
    return nullptr;
  }
  segment->base_ = static_cast<unsigned char*>(base);
  SegmentHeader* header = segment->header();
  std::memcpy(header->magic, magic, sizeof header->magic);
  header->version = kFormatVersion;
  header->header_size = kHeaderSize;
  header->record_size = record_size;
  header->number = number;
  header->capacity = record_size != 0 ? bytes / record_size : bytes;
  header->pid = static_cast<uint32_t>(getpid());
  header->header_crc = segment->header_crc();
  if (path.empty()) {
    char name[64];
    std::snprintf(name, sizeof name, "/proc/%d/fd/%d", static_cast<int>(getpid()), segment->fd_);
    segment->path_ = name;
  } else {
    close(segment->fd_);
    segment->fd_ = -1;
  }
  return segment.release();
}

Segment::~Segment() {
  unmap();
  if (fd_ >= 0) close(fd_);
}

void Segment::prefault() {
#ifndef MADV_POPULATE_WRITE
  constexpr int MADV_POPULATE_WRITE = 23;  // Linux 5.14; older kernels refuse it, and the faults come later
#endif
  madvise(base_, bytes_ + kHeaderSize, MADV_POPULATE_WRITE);
}

uint32_t Segment::header_crc() const { return crc32(base_, kCrcCovers); }

void Segment::set_first(uint64_t first) {
  header()->first = first;
  header()->header_crc = header_crc();
  const size_t suffix = std::strlen(kUnpublished);
  if (path_.size() < suffix || path_.compare(path_.size() - suffix, suffix, kUnpublished) != 0) return;
  std::string published = path_.substr(0, path_.size() - suffix);
  // Fails only when somebody took the directory away, and with it what was recorded.
  if (rename(path_.c_str(), published.c_str()) == 0) path_ = std::move(published);
}

void Segment::seal() {
  SegmentHeader* h = header();
  const uint64_t records = committed();
  h->checksum = crc32(payload(), h->record_size != 0 ? records * h->record_size : records);
  h->sealed = 1;
}

void Segment::finish() {
  if (base_ == nullptr) return;
  seal();
  const uint64_t records = committed();
  const uint64_t used = header()->record_size != 0 ? records * header()->record_size : records;
  unmap();
  // A file that stays too long is only that: the header says how much of it counts.
  if (truncate(path_.c_str(), static_cast<off_t>(kHeaderSize + used)) != 0) return;
}

void Segment::unmap() {
  if (base_ == nullptr) return;
  munmap(base_, bytes_ + kHeaderSize);
  base_ = nullptr;
}

FILE* open_regular(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return nullptr;
  struct stat status {};
  FILE* file = fstat(fd, &status) == 0 && S_ISREG(status.st_mode) ? fdopen(fd, "rb") : nullptr;
  if (file == nullptr) close(fd);
  return file;
}

bool check_header(const void* bytes, const char* magic, uint32_t record_size, std::string& why) {
  const auto* header = static_cast<const SegmentHeader*>(bytes);
  if (std::memcmp(header->magic, magic, sizeof header->magic) != 0) {
    why = "it is not a segment of a recording";
  } else if (crc32(bytes, kCrcCovers) != header->header_crc) {
    why = "its header is damaged";
  } else if (header->version != kFormatVersion) {
    why = "it has format version " + std::to_string(header->version) + ", and this release reads version " +
          std::to_string(kFormatVersion);
  } else if (header->header_size != kHeaderSize || header->record_size != record_size) {
    why = "its header names sizes that this format version does not have";
  } else {
    return true;
  }
  return false;
}

}  // namespace gpumem

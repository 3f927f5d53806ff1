// CRC-32 against published values and against the definition, bit by bit.
#include "check.h"
#include "crc32.h"

namespace {

uint32_t by_definition(const unsigned char* bytes, size_t size) {
  uint32_t crc = 0xFFFFFFFFu;
  for (size_t i = 0; i < size; ++i) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) != 0 ? (crc >> 1) ^ 0xEDB88320u : crc >> 1;
  }
  return ~crc;
}

uint32_t of(const std::string& text) { return gpumem::crc32(text.data(), text.size()); }

void published_values() {
  CHECK_EQ(of(""), 0u);
  CHECK_EQ(of("a"), 0xE8B7BE43u);
  CHECK_EQ(of("abc"), 0x352441C2u);
  CHECK_EQ(of("123456789"), 0xCBF43926u);
  CHECK_EQ(of("The quick brown fox jumps over the lazy dog"), 0x414FA339u);
  CHECK_EQ(of(std::string(32, '\0')), 0x190A55ADu);
  CHECK_EQ(of(std::string(32, '\xff')), 0xFF6CAB0Bu);
}

void every_length_and_alignment() {
  test::Random random(1);
  std::vector<unsigned char> bytes(400);
  for (auto& byte : bytes) byte = static_cast<unsigned char>(random());
  for (size_t begin = 0; begin < 16; ++begin) {
    for (size_t size = 0; size < 300; ++size) {
      CHECK_EQ(gpumem::crc32(&bytes[begin], size), by_definition(&bytes[begin], size));
    }
  }
}

void a_checksum_can_be_continued() {
  test::Random random(2);
  const std::string text = "a recording is read in pieces, and its checksum covers them all";
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    const uint32_t first = gpumem::crc32(text.data(), cut);
    CHECK_EQ(gpumem::crc32(text.data() + cut, text.size() - cut, first), of(text));
  }
}

}  // namespace

int main() {
  test::limit_time(60);
  RUN(published_values);
  RUN(every_length_and_alignment);
  RUN(a_checksum_can_be_continued);
}

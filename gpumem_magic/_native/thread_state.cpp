#include "thread_state.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <new>

namespace gpumem {
namespace {

void destroy(void* state) { delete static_cast<ThreadState*>(state); }

pthread_key_t make_key() {
  pthread_key_t key{};
  pthread_key_create(&key, destroy);
  return key;
}

}  // namespace

ThreadState* thread_state() {
  // A key rather than thread_local: its destructor needs no help from the loader, and looking it up is as quick.
  static const pthread_key_t key = make_key();
  auto* state = static_cast<ThreadState*>(pthread_getspecific(key));
  if (state != nullptr) return state;
  state = new (std::nothrow) ThreadState;
  if (state == nullptr) return nullptr;
  state->thread = static_cast<uint32_t>(syscall(SYS_gettid));
  pthread_setspecific(key, state);
  return state;
}

}  // namespace gpumem

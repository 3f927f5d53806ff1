/* The gate at the door of every driver function.
 *
 * DRIVER_API(cbid, name, type, parameter, ...) { body } defines an exported
 * driver function. Its parameters are also laid out as the struct that CUPTI
 * hands to callbacks (same order, natural alignment), so the definition of the
 * function is the definition of its callback record.
 *
 * While nothing needs attention (initialised, nobody subscribed, no fault or
 * delay armed), a call costs one relaxed atomic load before its body.
 */
#ifndef GSIM_ENTRY_H
#define GSIM_ENTRY_H

#include <stdatomic.h>

#include "cuda_types.h"

#define GSIM_EXPORT __attribute__((visibility("default")))

/* CUPTI from 13.2 on allows several subscribers; four are enough to test it. */
#define GSIM_SUBSCRIBERS 4

/* Reasons why a call must take the slow way; see gsim_attention. */
enum {
  GSIM_NOT_INITIALIZED = 1,
  GSIM_FORKED = 2,
  GSIM_SUBSCRIBED = 4,
  GSIM_FAULT_ARMED = 8,
  GSIM_DELAY_ARMED = 16,
};

extern atomic_uint gsim_attention;

/* One driver function, as fault injection and CUPTI know it. */
struct gsim_entry {
  const char *name;
  uint32_t cbid;
  bool works_before_init;
  atomic_int fault_status; /* CUresult to answer, 0 for none */
  atomic_int fault_after;  /* calls that still pass before it */
  atomic_int fault_times;  /* calls that fail then */
  atomic_uint delay_microseconds;
  atomic_bool delay_holds_lock;
};

/* One call on its way through the gate. */
struct gsim_call {
  struct gsim_entry *entry;
  const void *params;
  CUresult result;
  uint32_t correlation_id;
  uint32_t told; /* subscribers that saw the entry, one bit each */
  uint64_t correlation_data[GSIM_SUBSCRIBERS];
};

/* Returns true when the body is to run; otherwise call->result is the answer. */
bool gsim_call_begin(struct gsim_call *call, struct gsim_entry *entry, const void *params);
CUresult gsim_call_end(struct gsim_call *call);

/* Every entry of the library, gathered by the linker. */
extern struct gsim_entry *__start_gsim_entries[];
extern struct gsim_entry *__stop_gsim_entries[];

/* True inside a function whose default stream is the thread's own (_ptsz, _ptds). */
extern _Thread_local bool gsim_per_thread_default;

static inline bool gsim_quiet(void) {
  return __builtin_expect(atomic_load_explicit(&gsim_attention, memory_order_relaxed) == 0, 1);
}

/* The parameter list, unrolled pair by pair: as declarations, fields, names. */
#define GSIM_DECL(t, n) t n __attribute__((unused))
#define GSIM_FIELD(t, n) t n;
#define GSIM_NAME(t, n) n
#define GSIM_NONE()
#define GSIM_COMMA() ,
#define GSIM_P2(F, S, t, n) F(t, n)
#define GSIM_P4(F, S, t, n, ...) F(t, n) S() GSIM_P2(F, S, __VA_ARGS__)
#define GSIM_P6(F, S, t, n, ...) F(t, n) S() GSIM_P4(F, S, __VA_ARGS__)
#define GSIM_P8(F, S, t, n, ...) F(t, n) S() GSIM_P6(F, S, __VA_ARGS__)
#define GSIM_P10(F, S, t, n, ...) F(t, n) S() GSIM_P8(F, S, __VA_ARGS__)
#define GSIM_P12(F, S, t, n, ...) F(t, n) S() GSIM_P10(F, S, __VA_ARGS__)
#define GSIM_P14(F, S, t, n, ...) F(t, n) S() GSIM_P12(F, S, __VA_ARGS__)
#define GSIM_P16(F, S, t, n, ...) F(t, n) S() GSIM_P14(F, S, __VA_ARGS__)
#define GSIM_P18(F, S, t, n, ...) F(t, n) S() GSIM_P16(F, S, __VA_ARGS__)
#define GSIM_P20(F, S, t, n, ...) F(t, n) S() GSIM_P18(F, S, __VA_ARGS__)
#define GSIM_P22(F, S, t, n, ...) F(t, n) S() GSIM_P20(F, S, __VA_ARGS__)
#define GSIM_PICK(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, X, ...) X
#define GSIM_PAIRS(...)                                                                                             \
  GSIM_PICK(__VA_ARGS__, GSIM_P22, _, GSIM_P20, _, GSIM_P18, _, GSIM_P16, _, GSIM_P14, _, GSIM_P12, _, GSIM_P10, _, \
            GSIM_P8, _, GSIM_P6, _, GSIM_P4, _, GSIM_P2, _)
#define GSIM_DECLS(...) GSIM_PAIRS(__VA_ARGS__)(GSIM_DECL, GSIM_COMMA, __VA_ARGS__)
#define GSIM_FIELDS(...) GSIM_PAIRS(__VA_ARGS__)(GSIM_FIELD, GSIM_NONE, __VA_ARGS__)
#define GSIM_NAMES(...) GSIM_PAIRS(__VA_ARGS__)(GSIM_NAME, GSIM_COMMA, __VA_ARGS__)

#define GSIM_REGISTER(symbol, id, before_init)                                                                   \
  static struct gsim_entry symbol##_entry = {.name = #symbol, .cbid = (id), .works_before_init = (before_init)}; \
  static struct gsim_entry *symbol##_registered __attribute__((section("gsim_entries"), used)) = &symbol##_entry;

#define GSIM_BODY(name, ...) \
  typedef struct {           \
    GSIM_FIELDS(__VA_ARGS__) \
  } name##_params;           \
  static CUresult name##_body(GSIM_DECLS(__VA_ARGS__));

#define GSIM_GATE(symbol, name, ...)                                                                          \
  GSIM_EXPORT CUresult symbol(GSIM_DECLS(__VA_ARGS__)) {                                                      \
    if (gsim_quiet()) return name##_body(GSIM_NAMES(__VA_ARGS__));                                            \
    name##_params params = {GSIM_NAMES(__VA_ARGS__)};                                                         \
    struct gsim_call call;                                                                                    \
    if (gsim_call_begin(&call, &symbol##_entry, &params)) call.result = name##_body(GSIM_NAMES(__VA_ARGS__)); \
    return gsim_call_end(&call);                                                                              \
  }

#define DRIVER_API(cbid, name, ...)  \
  GSIM_BODY(name, __VA_ARGS__)       \
  GSIM_REGISTER(name, cbid, false)   \
  GSIM_GATE(name, name, __VA_ARGS__) \
  static CUresult name##_body(GSIM_DECLS(__VA_ARGS__))

/* A function that answers before cuInit. */
#define DRIVER_API_EARLY(cbid, name, ...) \
  GSIM_BODY(name, __VA_ARGS__)            \
  GSIM_REGISTER(name, cbid, true)         \
  GSIM_GATE(name, name, __VA_ARGS__)      \
  static CUresult name##_body(GSIM_DECLS(__VA_ARGS__))

/* A function without parameters. */
#define DRIVER_API_VOID(cbid, name)                                               \
  static CUresult name##_body(void);                                              \
  GSIM_REGISTER(name, cbid, false)                                                \
  GSIM_EXPORT CUresult name(void) {                                               \
    if (gsim_quiet()) return name##_body();                                       \
    struct gsim_call call;                                                        \
    if (gsim_call_begin(&call, &name##_entry, NULL)) call.result = name##_body(); \
    return gsim_call_end(&call);                                                  \
  }                                                                               \
  static CUresult name##_body(void)

/* A function and its twin (_ptsz or _ptds) whose default stream is the thread's. */
#define DRIVER_API_PT(cbid, name, cbid_pt, twin, ...)       \
  GSIM_BODY(name, __VA_ARGS__)                              \
  GSIM_REGISTER(name, cbid, false)                          \
  GSIM_REGISTER(twin, cbid_pt, false)                       \
  GSIM_GATE(name, name, __VA_ARGS__)                        \
  typedef name##_params twin##_params;                      \
  static CUresult twin##_body(GSIM_DECLS(__VA_ARGS__)) {    \
    gsim_per_thread_default = true;                         \
    CUresult result = name##_body(GSIM_NAMES(__VA_ARGS__)); \
    gsim_per_thread_default = false;                        \
    return result;                                          \
  }                                                         \
  GSIM_GATE(twin, twin, __VA_ARGS__)                        \
  static CUresult name##_body(GSIM_DECLS(__VA_ARGS__))

#endif

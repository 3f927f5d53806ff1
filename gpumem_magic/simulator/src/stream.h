/* Streams. Everything submitted to one is done before the call returns, so a
 * stream's state is what it was made with and whether it is being captured.
 */
#ifndef GSIM_STREAM_H
#define GSIM_STREAM_H

#include "context.h"

enum gsim_capture_status { GSIM_NOT_CAPTURING, GSIM_CAPTURING, GSIM_CAPTURE_INVALIDATED };
enum { GSIM_CAPTURE_GLOBAL, GSIM_CAPTURE_THREAD_LOCAL, GSIM_CAPTURE_RELAXED };

/* A capture is shared by the streams that joined it through events. */
struct gsim_capture {
  CUgraph graph;
  CUstream origin;
  uint64_t id;
  int mode;
  bool invalidated;
  bool owns_graph;  /* false when capturing into the caller's graph */
  uint64_t thread;  /* that began it */
  CUstream streams; /* the origin and those that joined */
  struct gsim_capture *next;
};

struct gsim_stream {
  struct gsim_handle handle;
  CUcontext context;
  struct gsim_owned owned;
  uint64_t id;
  unsigned flags;
  int priority;
  bool is_default; /* one of the context's own two */
  struct gsim_capture *capture;
  CUstream next_captured; /* in the same capture */
  CUgraphNode tail;       /* what the next captured node will depend on, or NULL */
};

/* The stream that a handle means to this caller; needs the driver's lock. NULL
 * and the two special handles mean the current context's own streams. */
CUresult gsim_stream_resolve(CUstream handle, CUstream *out);

/* Why a call that is unsafe during capture must fail now, or success. It
 * invalidates the captures in its way. */
CUresult gsim_capture_forbid_unsafe(void);

/* Why work that waits for the stream must fail now (it is being captured). */
CUresult gsim_capture_forbid_wait(CUstream stream);

/* The same for work that waits for the whole context. */
CUresult gsim_capture_forbid_context_wait(CUcontext context);

/* Makes the stream part of the capture, if it still goes on, that an event it
 * waits for was recorded into. */
CUresult gsim_capture_join(CUstream stream, uint64_t capture_id);

/* Leaves a capture that ends with its stream. */
void gsim_capture_abandon(CUstream stream);

#endif

/* The events of the peer: the payload that the bench's own have. */
#undef LTTNG_UST_TRACEPOINT_PROVIDER
#define LTTNG_UST_TRACEPOINT_PROVIDER outlive_bench

#undef LTTNG_UST_TRACEPOINT_INCLUDE
#define LTTNG_UST_TRACEPOINT_INCLUDE "./peer.h"

#if !defined(PEER_H) || defined(LTTNG_UST_TRACEPOINT_HEADER_MULTI_READ)
#define PEER_H

#include <lttng/tracepoint.h>
#include <stdint.h>

LTTNG_UST_TRACEPOINT_EVENT(
    outlive_bench, ints, LTTNG_UST_TP_ARGS(uint64_t, a, uint32_t, b),
    LTTNG_UST_TP_FIELDS(lttng_ust_field_integer(uint64_t, a, a)
                            lttng_ust_field_integer(uint32_t, b, b)))

LTTNG_UST_TRACEPOINT_EVENT(
    outlive_bench, kept, LTTNG_UST_TP_ARGS(uint64_t, a, uint32_t, b),
    LTTNG_UST_TP_FIELDS(lttng_ust_field_integer(uint64_t, a, a)
                            lttng_ust_field_integer(uint32_t, b, b)))

#endif

#include <lttng/tracepoint-event.h>

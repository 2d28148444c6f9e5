/* The peer of the bench, loaded into the same process: events of LTTng-UST. */
#define LTTNG_UST_TRACEPOINT_CREATE_PROBES
#define LTTNG_UST_TRACEPOINT_DEFINE
#include "peer.h"

void peer_ints(uint32_t calls)
{
    for (uint32_t i = 0; i < calls; i++)
        lttng_ust_tracepoint(outlive_bench, ints, i, i);
}

void peer_kept(uint32_t calls)
{
    for (uint32_t i = 0; i < calls; i++)
        lttng_ust_tracepoint(outlive_bench, kept, i, i);
}

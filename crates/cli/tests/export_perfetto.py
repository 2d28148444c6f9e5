"""Compares a Perfetto trace, decoded with Perfetto's own classes, with the JSON lines of the same events.

usage: export_perfetto.py TRACE JSON_LINES [SOURCE...]; prints what was compared as one JSON object. Of several
regions the sources are named as they were given; one of them at most is a kernel's.
"""

import json
import sys
from collections import defaultdict

from google.protobuf.descriptor import FieldDescriptor
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

# Fields that Perfetto's messages lack, of the events that are written with them all the same.
LACKING = {
    ("sched_process_exit", "group_dead"),
    ("signal_generate", "errno"),
    ("signal_deliver", "errno"),
    ("signal_deliver", "sa_handler"),
}
BOOTTIME = 6
# The clock of the first source; the next source has the next one.
OWN_CLOCKS = 128
NARROW = {FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_UINT32}


def as_number(value):
    return int(value, 16) if isinstance(value, str) else int(value)


def same_native(message, event, name, expected):
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        return (event, name) in LACKING
    got = getattr(message, name)
    if isinstance(expected, list):
        return list(got) == [as_number(value) for value in expected]
    assert message.HasField(name), (event, name)
    if isinstance(got, str):
        return got == expected
    bits = 32 if field.cpp_type in NARROW else 64
    return (as_number(got) - as_number(expected)) % (1 << bits) == 0


def same_as_text(got, expected):
    if isinstance(expected, float):
        return float(got) == expected
    return json.loads(got) == expected


def same_generic(field, expected):
    kind = field.WhichOneof("value")
    got = getattr(field, kind)
    if kind != "str_value":
        return got == as_number(expected)
    return got == expected if isinstance(expected, str) else same_as_text(got, expected)


def check_ftrace(event, expected, convert):
    assert event.timestamp == convert(expected), (event.timestamp, expected)
    assert event.pid == expected["pid"] % (1 << 32), expected
    assert event.common_flags == expected["flags"], expected
    kind = event.WhichOneof("event")
    message = getattr(event, kind)
    if kind == "generic":
        fields = {field.name: field for field in message.field}
        assert message.event_name == expected.get("event", "unknown"), expected
        if "fields" not in expected:
            assert same_generic(fields["id"], expected["id"]), expected
            return kind
        for name, value in expected["fields"].items():
            if value is not None:
                assert same_generic(fields.pop(name), value), (name, expected)
        assert not fields, (fields, expected)
    else:
        assert kind == expected["event"], expected
        for name, value in expected["fields"].items():
            assert same_native(message, kind, name, value), (name, message, expected)
    return kind


def compare_ftrace(trace, expected, convert):
    by_cpu, lost, kinds = defaultdict(list), set(), defaultdict(int)
    for packet in trace.packet:
        if not packet.HasField("ftrace_events"):
            continue
        bundle = packet.ftrace_events
        if bundle.lost_events:
            lost.add((bundle.cpu, len(by_cpu[bundle.cpu])))
        by_cpu[bundle.cpu].extend(bundle.event)
    seen = defaultdict(int)
    for line in expected:
        cpu = line["cpu"]
        index = seen[cpu]
        seen[cpu] += 1
        kinds[check_ftrace(by_cpu[cpu][index], line, convert)] += 1
        assert ((cpu, index) in lost) == ("lost_before" in line), line
    assert {cpu: len(events) for cpu, events in by_cpu.items()} == dict(seen)
    return kinds, len(lost)


def converter(trace, sources):
    """From the time of a line's trace clock to BOOTTIME, by the clock snapshots of its source."""
    pairs = defaultdict(list)
    for packet in trace.packet:
        clocks = {c.clock_id: c.timestamp for c in packet.clock_snapshot.clocks}
        for clock, time in clocks.items():
            if clock >= OWN_CLOCKS:
                pairs[clock - OWN_CLOCKS].append((time, clocks[BOOTTIME]))

    def convert(line):
        ts, own = line["ts"], pairs[sources.index(line["source"]) if sources else 0]
        before = [pair for pair in own if pair[0] <= ts][-1:]
        after = [pair for pair in own if pair[0] > ts][:1]
        if before and after:
            (t0, b0), (t1, b1) = before[0], after[0]
            return b0 + (b1 - b0) * (ts - t0) // (t1 - t0)
        for trace_time, boottime in before or after:
            return ts - trace_time + boottime
        return ts

    return convert


def annotation_value(annotation):
    kind = annotation.WhichOneof("value")
    return hex(annotation.pointer_value) if kind == "pointer_value" else getattr(annotation, kind)


class Sequence:
    """What the packets of one source build on: names by their number, and whether events are missing."""

    def __init__(self, is_lost=False):
        self.names, self.notes, self.categories, self.is_lost = {}, {}, {}, is_lost


def compare_tracks(trace, expected, convert):
    """Track events by the thread of their track, with names out of the interned data."""
    threads, parents, sequences = {}, {}, defaultdict(Sequence)
    kinds, lost, at = defaultdict(int), 0, 0
    open_slices = defaultdict(list)
    for packet in trace.packet:
        if packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            parents[track.uuid] = track.parent_uuid
            if track.HasField("thread"):
                threads[track.uuid] = track.thread.tid
        if packet.previous_packet_dropped:
            sequences[packet.trusted_packet_sequence_id] = Sequence(is_lost=True)
        known = sequences[packet.trusted_packet_sequence_id]
        known.names.update({n.iid: n.name for n in packet.interned_data.event_names})
        known.notes.update({n.iid: n.name for n in packet.interned_data.debug_annotation_names})
        known.categories.update({n.iid: n.name for n in packet.interned_data.event_categories})
        if not packet.HasField("track_event"):
            continue
        event, line = packet.track_event, expected[at]
        at += 1
        assert packet.timestamp == convert(line), (packet.timestamp, line)
        track = event.track_uuid
        thread = track if track in threads else parents[track]
        assert threads[thread] == line["pid"], line
        assert known.is_lost == ("lost_before" in line), line
        lost, known.is_lost = lost + known.is_lost, False
        got = {known.notes[a.name_iid]: annotation_value(a) for a in event.debug_annotations}
        for name, value in line["fields"].items():
            same = got[name] == value if isinstance(value, (str, int, float)) else same_as_text(got[name], value)
            assert same, (got, line)
        kind = event.Type.Name(event.type)
        kinds[kind] += 1
        if event.type == event.TYPE_SLICE_END:
            assert open_slices[track].pop() == line["fields"]["span_id"], line
            continue
        assert known.names[event.name_iid] == line["event"], line
        assert [known.categories[c] for c in event.category_iids] == [line["system"]], line
        if event.type == event.TYPE_SLICE_BEGIN:
            open_slices[track].append(line["fields"]["span_id"])
    assert at == len(expected), (at, len(expected))
    return kinds, lost


def split(lines, belongs):
    return [line for line in lines if belongs(line)], [line for line in lines if not belongs(line)]


def main():
    trace = pb.Trace()
    with open(sys.argv[1], "rb") as file:
        trace.ParseFromString(file.read())
    with open(sys.argv[2], encoding="utf-8") as file:
        expected = [json.loads(line) for line in file]
    convert = converter(trace, sys.argv[3:])
    # A kernel's records have flags.
    of_kernel, of_program = split(expected, lambda line: "flags" in line)
    kinds, lost = compare_ftrace(trace, of_kernel, convert)
    program_kinds, program_lost = compare_tracks(trace, of_program, convert)
    names, threads, stats = {}, {}, {}
    for packet in trace.packet:
        names.update({p.pid: p.cmdline[0] for p in packet.process_tree.processes})
        names.update({t.tid: t.name for t in packet.process_tree.threads})
        if packet.track_descriptor.HasField("thread"):
            threads[packet.track_descriptor.thread.tid] = packet.track_descriptor.thread.thread_name
        if packet.ftrace_stats.phase == pb.FtraceStats.END_OF_TRACE:
            stats = {str(s.cpu): s.overrun for s in packet.ftrace_stats.cpu_stats}
    for lines, known in ((of_kernel, names), (of_program, threads)):
        assert all(line["comm"] in (None, known.get(line["pid"])) for line in lines if line["pid"] > 0)
    kinds.update(program_kinds)
    lost += program_lost
    print(json.dumps({"events": len(expected), "kinds": kinds, "lost": lost, "overrun": stats}))


main()

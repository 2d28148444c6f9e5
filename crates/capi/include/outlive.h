/*
 * outlive: a flight recorder in any program. Events go into memory that is still there when the
 * program is not: no daemon, no root, no system call per event, no code at the moment of death.
 *
 * Errors. A function that can fail returns an OUTLIVE_ status, 0 if all is well. Those that are not
 * on the hot path take an outlive_error ** too; if it is not NULL, it is set to an object with a
 * message, or to NULL. There is no errno and no message of a thread. Free the object with
 * outlive_error_free.
 *
 * Threads. Any number of threads may record and declare events. A recorder is closed by one thread,
 * once; others may still be recording then: their events go nowhere. outlive_record,
 * outlive_span_begin and outlive_span_end may be called in a signal handler.
 *
 * Compatibility. Set type_size to sizeof the struct, and everything that you do not set to zero:
 * later versions add members in the place of `reserved` and behind, where zero means what it is now.
 *
 * Null pointers give OUTLIVE_NULL_POINTER, texts that are not UTF-8 OUTLIVE_NOT_UTF8. A pointer that
 * is neither null nor to what it has to be is as wrong here as anywhere in C.
 */

#ifndef OUTLIVE_H
#define OUTLIVE_H

/* Made from crates/capi/src by `cargo xtask header`: change it there. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 There was no run before.
 */
#define OUTLIVE_NO_PREVIOUS 0

/*
 The run before ended by itself.
 */
#define OUTLIVE_CLEAN_EXIT 1

/*
 The run before died, and the machine went on.
 */
#define OUTLIVE_CRASH 2

/*
 The machine went down in the run before.
 */
#define OUTLIVE_HOST_REBOOTED 3

/*
 How the run before ended is not known.
 */
#define OUTLIVE_UNKNOWN 4

/*
 An integer of 8 bits without a sign: data.u.
 */
#define OUTLIVE_U8 1

/*
 An integer of 16 bits without a sign: data.u.
 */
#define OUTLIVE_U16 2

/*
 An integer of 32 bits without a sign: data.u.
 */
#define OUTLIVE_U32 3

/*
 An integer of 64 bits without a sign: data.u.
 */
#define OUTLIVE_U64 4

/*
 An integer of 8 bits: data.i.
 */
#define OUTLIVE_I8 5

/*
 An integer of 16 bits: data.i.
 */
#define OUTLIVE_I16 6

/*
 An integer of 32 bits: data.i.
 */
#define OUTLIVE_I32 7

/*
 An integer of 64 bits: data.i.
 */
#define OUTLIVE_I64 8

/*
 true or false: data.u, where all but 0 is true.
 */
#define OUTLIVE_BOOL 9

/*
 A floating-point number of 32 bits: data.f.
 */
#define OUTLIVE_F32 10

/*
 A floating-point number of 64 bits: data.f.
 */
#define OUTLIVE_F64 11

/*
 A text of len bytes at data.bytes. It need not end with a zero.
 */
#define OUTLIVE_TEXT 12

/*
 len bytes at data.bytes.
 */
#define OUTLIVE_BYTES 13

/*
 What went wrong, in words.
 */
typedef struct outlive_error outlive_error;

/*
 An event, or the beginning of a span. It is there until the process ends.
 */
typedef struct outlive_event outlive_event;

/*
 A recorder.
 */
typedef struct outlive_recorder outlive_recorder;

/*
 What a function returns: 0 or what went wrong.
 */
typedef int32_t outlive_status;

/*
 A field of an event.
 */
typedef struct outlive_field {
  /*
   Letters, digits and _, no digit first.
   */
  const char *name;
  /*
   One of OUTLIVE_U8 and so on.
   */
  uint32_t type;
  /*
   Zero.
   */
  uint32_t reserved;
} outlive_field;

/*
 What a value is, by its type.
 */
typedef union outlive_data {
  /*
   Of integers without a sign, and bool.
   */
  uint64_t u;
  /*
   Of integers with a sign.
   */
  int64_t i;
  /*
   Of floating-point numbers.
   */
  double f;
  /*
   Of texts and bytes.
   */
  const void *bytes;
} outlive_data;

/*
 A value of a field. An integer that its type cannot hold is cut to the lower bits.
 */
typedef struct outlive_value {
  /*
   That of the field.
   */
  uint32_t type;
  /*
   Bytes of a text or of bytes; else zero.
   */
  uint32_t len;
  /*
   The value.
   */
  union outlive_data data;
} outlive_value;

/*
 How a recorder is configured. All zero but type_size and name is right.
 */
typedef struct outlive_options {
  /*
   sizeof(struct outlive_options).
   */
  size_t type_size;
  /*
   The program's name: that of its folder in the state. Not NULL.
   */
  const char *name;
  /*
   The program's version; NULL none.
   */
  const char *version;
  /*
   The state folder; NULL: that of OUTLIVE_STATE, else /var/lib/outlive for root, `outlive` in the XDG
   state folder for others.
   */
  const char *state;
  /*
   Where the region lives while the program runs: tmpfs, tmpfs:PATH, file, file:PATH, dax:PATH; NULL
   tmpfs.
   */
  const char *area;
  /*
   Size and events in the kernel's grammar, in the place of size_bytes and events; NULL none.
   */
  const char *command_line;
  /*
   Patterns of the events that are on from the start, as `http:*`; NULL all.
   */
  const char *const *events;
  /*
   How many those are.
   */
  size_t nr_events;
  /*
   Bytes of the ring; 0: 4 MiB.
   */
  uint64_t size_bytes;
  /*
   Earlier runs to keep; 0: 8.
   */
  uint32_t keep;
  /*
   1: a full ring drops new events instead of overwriting the oldest.
   */
  uint32_t no_overwrite;
  /*
   Zeros.
   */
  uint64_t reserved[4];
} outlive_options;

/*
 A span that has begun. It ends in the thread in which it began.
 */
typedef struct outlive_span {
  /*
   No other span of this program's run has it; 0: it is not recorded.
   */
  uint64_t id;
  /*
   That of the span that it is inside of; 0 none.
   */
  uint64_t parent;
} outlive_span;

/*
 All is well.
 */
#define OUTLIVE_OK 0

/*
 A pointer is null that must not be.
 */
#define OUTLIVE_NULL_POINTER 1

/*
 A text is not UTF-8.
 */
#define OUTLIVE_NOT_UTF8 2

/*
 A struct's type_size is none that this library knows, or a reserved member is not zero.
 */
#define OUTLIVE_BAD_STRUCT 3

/*
 There are more or fewer values than the event has fields.
 */
#define OUTLIVE_BAD_COUNT 4

/*
 A value is not of its field's type, or a type is none.
 */
#define OUTLIVE_BAD_TYPE 5

/*
 An event or span cannot be declared so.
 */
#define OUTLIVE_BAD_DECLARATION 6

/*
 A span's event where another one is needed, or the other way round.
 */
#define OUTLIVE_BAD_KIND 7

/*
 The recorder cannot be started; what the run before left is as it was, or kept.
 */
#define OUTLIVE_NOT_STARTED 8

/*
 The process has a recorder already.
 */
#define OUTLIVE_ALREADY_STARTED 9

/*
 A fault of this library.
 */
#define OUTLIVE_PANIC 10

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 The status that the function returned; 0 for NULL.
 */
outlive_status outlive_error_status(const struct outlive_error *error);

/*
 What went wrong, in words, as long as the error is there; NULL for NULL.
 */
const char *outlive_error_message(const struct outlive_error *error);

/*
 Frees an error and sets the pointer to NULL.
 */
void outlive_error_free(struct outlive_error **error);

/*
 Declares the event SYSTEM:NAME with these fields, and stores it in *event. Declare each once: what it
 takes is never freed. It may be declared before there is a recorder, and stays good for the next one.
 */
outlive_status outlive_event_declare(const char *system,
                                     const char *name,
                                     const struct outlive_field *fields,
                                     size_t nr_fields,
                                     const struct outlive_event **event,
                                     struct outlive_error **error);

/*
 Declares the event with which spans SYSTEM:NAME begin, for outlive_span_begin. The span's id and its
 parent's are added to the fields.
 */
outlive_status outlive_span_declare(const char *system,
                                    const char *name,
                                    const struct outlive_field *fields,
                                    size_t nr_fields,
                                    const struct outlive_event **event,
                                    struct outlive_error **error);

/*
 Whether the event would be recorded: there is a recorder, and nobody switched the event off. false for
 NULL. For values that are dear to compute; outlive_record looks itself.
 */
bool outlive_event_is_enabled(const struct outlive_event *event);

/*
 Records an event with a value for each of its fields. Nothing is recorded, and OUTLIVE_OK returned, if
 there is no recorder or the event is switched off. What does not fit 4080 bytes is cut, and marked.
 */
outlive_status outlive_record(const struct outlive_event *event,
                              const struct outlive_value *values,
                              size_t nr_values);

/*
 Keeps what the run before left, starts to record, and stores the recorder in *recorder. A process has
 one at a time.
 */
outlive_status outlive_recorder_start(const struct outlive_options *options,
                                      struct outlive_recorder **recorder,
                                      struct outlive_error **error);

/*
 Ends the recording, cleanly, and sets the pointer to NULL. `exit` does it too.
 */
void outlive_recorder_close(struct outlive_recorder **recorder);

/*
 How the run before ended: one of OUTLIVE_NO_PREVIOUS and so on.
 */
uint32_t outlive_previous_verdict(const struct outlive_recorder *recorder);

/*
 The folder in which the run before is kept, as long as the recorder is there; NULL: there was none.
 */
const char *outlive_previous_path(const struct outlive_recorder *recorder);

/*
 Begins a span, inside of the thread's innermost one: records its event, which outlive_span_declare
 made. *span is set, to zeros if nothing is recorded.
 */
outlive_status outlive_span_begin(const struct outlive_event *event,
                                  const struct outlive_value *values,
                                  size_t nr_values,
                                  struct outlive_span *span);

/*
 Ends a span and sets it to zeros. One of zeros is none: nothing happens.
 */
outlive_status outlive_span_end(struct outlive_span *span);

/*
 Of a status: what it means. Never null, and never freed.
 */
const char *outlive_status_text(outlive_status status);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* OUTLIVE_H */

#ifndef __cplusplus
/* Values for outlive_record, in the order of the event's fields. */
#define OUTLIVE_VALUE(type_, member_, value_) \
  ((struct outlive_value){.type = (type_), .data = {.member_ = (value_)}})
#define outlive_bool(v) OUTLIVE_VALUE(OUTLIVE_BOOL, u, (v) ? 1 : 0)
#define outlive_u8(v) OUTLIVE_VALUE(OUTLIVE_U8, u, (uint8_t)(v))
#define outlive_u16(v) OUTLIVE_VALUE(OUTLIVE_U16, u, (uint16_t)(v))
#define outlive_u32(v) OUTLIVE_VALUE(OUTLIVE_U32, u, (uint32_t)(v))
#define outlive_u64(v) OUTLIVE_VALUE(OUTLIVE_U64, u, (v))
#define outlive_i8(v) OUTLIVE_VALUE(OUTLIVE_I8, i, (int8_t)(v))
#define outlive_i16(v) OUTLIVE_VALUE(OUTLIVE_I16, i, (int16_t)(v))
#define outlive_i32(v) OUTLIVE_VALUE(OUTLIVE_I32, i, (int32_t)(v))
#define outlive_i64(v) OUTLIVE_VALUE(OUTLIVE_I64, i, (v))
#define outlive_f32(v) OUTLIVE_VALUE(OUTLIVE_F32, f, (v))
#define outlive_f64(v) OUTLIVE_VALUE(OUTLIVE_F64, f, (v))
#define outlive_text(v, len_) \
  ((struct outlive_value){.type = OUTLIVE_TEXT, .len = (uint32_t)(len_), .data = {.bytes = (v)}})
#define outlive_bytes(v, len_) \
  ((struct outlive_value){.type = OUTLIVE_BYTES, .len = (uint32_t)(len_), .data = {.bytes = (v)}})
#endif
